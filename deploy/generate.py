"""Write what the chart has from elsewhere, and the plain manifests that it renders.

    python -m deploy.generate [--check]

A chart can't read files outside its folder, so the alerts and the board are copied, and the schema
of its values has the schema of the settings in it. The plain manifests need Helm; without it they
stay as they are.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from benchmarks.docs.markdown import replaced
from deploy.values_table import values_table
from worker.settings import options, read_environment, schema

DEPLOY: Final = Path(__file__).parent
CHART: Final = DEPLOY / "chart"
PLAIN: Final = DEPLOY / "kubernetes"
ALERTS: Final = DEPLOY / "prometheus" / "alerts.yml"
BOARD: Final = DEPLOY / "grafana" / "dashboards" / "streamlabel.json"

# Options that name a file which a Secret may hold, and names that come with a password.
_FILES: Final = re.compile(r"(ca|cert|key|crl|token_)file$")
_USERS: Final = ("kafka.sasl_username", "kafka.sasl_oauth_client_id", "registry.username")

# The lines of a manifest that only Helm uses.
_OF_HELM: Final = re.compile(
    r"helm\.sh/chart:|managed-by:|checksum/settings:|# The worker reads its settings at the start"
)
_KUSTOMIZATION: Final = """\
# Rendered from deploy/chart with its default values, by `make generate`.
#
#   kubectl apply --kustomize deploy/kubernetes
#
# Set the image, the broker and the topics first: streamlabel.toml is in configmap.yaml. Workers read
# it when they start: `kubectl rollout restart deployment/streamlabel` after a change.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
"""


def values_schema() -> str:
    """Return the JSON Schema of the chart's values, with the settings in it."""
    document = yaml.safe_load((DEPLOY / "values.schema.yaml").read_text(encoding="utf-8"))
    settings = json.loads(schema.render())
    tables = settings.pop("$defs")
    for name in ("$schema", "$id", "title"):
        del settings[name]
    _refuse_secrets(settings, tables)
    _keep_probes(tables["HttpSettings"]["properties"])
    document["$defs"] |= {"Settings": settings} | tables
    properties = document["properties"]
    properties["secrets"]["items"]["properties"]["setting"] = {"enum": from_files()}
    properties["prometheusRule"]["properties"]["disabled"]["items"] = {"enum": alerts()}
    return json.dumps(document, indent=1) + "\n"


def from_files() -> list[str]:
    """Return the options whose values, or whose files, a Secret may hold."""
    return [o.path for o in options() if o.secret or o.path in _USERS or _FILES.search(o.path)]


def alerts() -> list[str]:
    """Return the names of the alerts."""
    document = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return [rule["alert"] for group in document["groups"] for rule in group["rules"]]


def _refuse_secrets(settings: dict[str, Any], tables: dict[str, Any]) -> None:
    """Replace each secret option by a text that nobody means: Helm shows it in its message."""
    for option in options():
        if not option.secret:
            continue
        section = settings["properties"][option.section]["$ref"].rpartition("/")[2]
        tables[section]["properties"][option.path.rpartition(".")[2]] = {
            "const": f"in a Secret: secrets: [{{setting: {option.path}, secretName: ..., key: ...}}]",
            "description": "A secret: list it in `secrets`.",
        }


def _keep_probes(http: dict[str, Any]) -> None:
    http["enabled"] |= {"const": True, "description": "Must be true: the probes need it."}
    http["port"]["minimum"] = 1


def readme() -> str:
    """Return the chart's README with the table of its values."""
    page = (CHART / "README.md").read_text(encoding="utf-8")
    values = (CHART / "values.yaml").read_text(encoding="utf-8")
    return replaced(page, "values", values_table(values))


def plain_manifests(helm: str) -> Iterator[tuple[Path, str]]:
    """Yield the manifests that the chart renders by default, without the marks of Helm.

    Raises:
        CalledProcessError: Helm refuses the chart; its words are on standard error.
    """
    command = [helm, "template", "streamlabel", str(CHART)]
    rendered = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    names = []
    for document in rendered.split("---\n# Source: streamlabel/templates/")[1:]:
        name, _, text = document.partition("\n")
        name = name.replace("workload", "deployment")
        names.append(name)
        yield (
            PLAIN / name,
            "".join(line for line in text.splitlines(keepends=True) if not _OF_HELM.search(line)),
        )
    listed = "".join(f"  - {name}\n" for name in names)
    yield PLAIN / "kustomization.yaml", _KUSTOMIZATION + listed


def generated(helm: str | None) -> Iterator[tuple[Path, str]]:
    """Yield the path and content of each generated file; the schema first, for Helm reads it."""
    yield CHART / "values.schema.json", values_schema()
    yield CHART / "files" / "alerts.yml", ALERTS.read_text(encoding="utf-8")
    yield CHART / "files" / "dashboard.json", BOARD.read_text(encoding="utf-8")
    yield CHART / "README.md", readme()
    if helm:
        yield from plain_manifests(helm)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the files; with `--check`, return 1 if one differs."""
    parser = argparse.ArgumentParser(
        prog="python -m deploy.generate", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 if stale")
    check, stale = parser.parse_args(argv).check, False
    helm = shutil.which(read_environment("HELM") or "helm")
    if not helm:
        sys.stderr.write("deploy/kubernetes stays as it is: there is no Helm (HELM names one)\n")
    for file, content in generated(helm):
        if file.exists() and file.read_text(encoding="utf-8") == content:
            continue
        if check:
            stale = True
            sys.stderr.write(f"{file.name} is stale: run python -m deploy.generate\n")
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(content, encoding="utf-8")
    return int(stale)


if __name__ == "__main__":
    sys.exit(main())
