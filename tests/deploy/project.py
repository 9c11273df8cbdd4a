"""Reads the project's deployment files as the container engine would. No tests."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from worker.settings import Loaded, load

ROOT = Path(__file__).parents[2]
BOARD = "deploy/grafana/dashboards/streamlabel.json"
SCRAPING = "deploy/prometheus/prometheus.yml"
ALERTS = "deploy/prometheus/alerts.yml"
PROVISIONING = "deploy/grafana/provisioning"

Service = dict[str, Any]


@dataclass(frozen=True)
class Project:
    """A checkout, or a copy of its deployment files with a planted fault."""

    root: Path

    def text(self, path: str) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    @cached_property
    def compose(self) -> dict[str, Any]:
        """The Compose file when the shell that runs Compose sets no variables."""
        text = interpolated(self.text("docker-compose.yml"))
        document: dict[str, Any] = yaml.safe_load(text)
        return document

    @property
    def services(self) -> dict[str, Service]:
        services: dict[str, Service] = self.compose["services"]
        return services

    @property
    def own(self) -> dict[str, Service]:
        """The services that run the project's image."""
        return {name: s for name, s in self.services.items() if "build" in s}

    @cached_property
    def dockerfile(self) -> list[tuple[str, str]]:
        """Instructions and their arguments, with continued lines joined and without comments."""
        lines = [x for x in self.text("Dockerfile").splitlines() if not x.startswith("#")]
        joined = "\n".join(lines).replace("\\\n", " ")
        parts = [line.split(maxsplit=1) for line in joined.splitlines() if line.strip()]
        return [(name.upper(), " ".join(rest[0].split())) for name, *rest in parts]

    @property
    def final_stage(self) -> list[tuple[str, str]]:
        last = max(i for i, (name, _) in enumerate(self.dockerfile) if name == "FROM")
        return self.dockerfile[last:]

    def instruction(self, name: str) -> str:
        """Return the arguments of the final stage's last instruction of that name."""
        return next(args for other, args in reversed(self.final_stage) if other == name)

    def argument(self, name: str) -> str:
        """Return the default of a build argument."""
        pairs = (
            args.partition("=") for instruction, args in self.dockerfile if instruction == "ARG"
        )
        return next(value for key, _, value in pairs if key == name)

    @property
    def image_environment(self) -> dict[str, str]:
        pairs = [a for name, args in self.final_stage if name == "ENV" for a in args.split()]
        return dict(pair.split("=", 1) for pair in pairs)

    def environment(self, service: str) -> dict[str, str]:
        """Return the variables that a service's container has for certain."""
        declared = self.services[service].get("environment", {})
        values = {k: str(v) for k, v in declared.items() if v is not None}
        return self.image_environment | values

    def settings(self, service: str) -> Loaded:
        """Load the settings of a service, as its container finds them."""
        environ = self.environment(service)
        mounted = {c["target"]: c["source"] for c in self.services[service].get("configs", [])}
        file = mounted.get(environ.pop("STREAMLABEL_CONFIG", ""))
        config = self.root / self.compose["configs"][file]["file"] if file else None
        return load(config=config, environ=environ)

    @cached_property
    def board(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.text(BOARD))
        return document

    @property
    def panels(self) -> list[dict[str, Any]]:
        return [panel for panel in self.board["panels"] if panel["type"] != "row"]

    @cached_property
    def alerts(self) -> list[dict[str, Any]]:
        (group,) = yaml.safe_load(self.text(ALERTS))["groups"]
        rules: list[dict[str, Any]] = group["rules"]
        return rules

    @property
    def variables(self) -> dict[str, dict[str, Any]]:
        """The board's variables, by name."""
        return {variable["name"]: variable for variable in self.board["templating"]["list"]}

    @property
    def expressions(self) -> Iterator[tuple[str, str]]:
        """Each query of the board as it stands there, with its panel's title."""
        for panel in self.panels:
            for target in panel["targets"]:
                yield panel["title"], target["expr"]
        for annotation in self.board["annotations"]["list"]:
            yield annotation["name"], annotation["expr"]

    def queries(self) -> Iterator[tuple[str, str]]:
        """Yield each query with its panel's title, and with Grafana's variables filled in."""
        for title, expression in self.expressions:
            yield title, filled(expression)


def filled(query: str) -> str:
    """Fill in Grafana's variables; each of the board's own has the choice "All"."""
    return re.sub(r"\$(?!__)\w+", ".*", query.replace("$__rate_interval", "1m"))


def interpolated(value: str) -> str:
    """Expand `${NAME:-default}` as compose does when NAME is not set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", value)


def seconds(duration: str) -> int:
    """Parse a duration in compose's notation, such as 1m30s."""
    units = {"h": 3600, "m": 60, "s": 1}
    return sum(int(n) * units[unit] for n, unit in re.findall(r"(\d+)([hms])", duration))
