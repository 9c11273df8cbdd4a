"""Writes the README's tables from the code, so that they can't outlive it.

Owns what stands between `<!-- NAME:begin -->` and `<!-- NAME:end -->` in README.md. Run by hand,
on the main thread: `python -m benchmarks.readme`, or `--check` to compare only. Must not import
torch, transformers or kafka, nor the command line: that one is asked as a user would ask it.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from annotated_types import BaseMetadata
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase

from benchmarks.goals import markdown
from schemas import Classification, DeadLetter, DeadLetterReason, TextMessage
from worker.metrics import Metrics, PoolMetrics
from worker.settings import Option, child_environment, options

README = Path(__file__).parents[1] / "README.md"

_SYMBOLS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥"}
_SUFFIXES = {"counter": "_total", "info": "_info"}
_REASONS = {
    DeadLetterReason.NULL_VALUE: "The record has no value (a tombstone).",
    DeadLetterReason.TOO_LARGE: "The value is larger than `input.max_bytes`, or the "
    "record than `max_inflight_bytes`.",
    DeadLetterReason.SCHEMA_FRAMED: "A schema registry's serializer wrote the value; the message has "
    "the schema's id.",
    DeadLetterReason.NOT_UTF8: "The value is not UTF-8.",
    DeadLetterReason.NOT_JSON: "The value is not JSON.",
    DeadLetterReason.NOT_AN_OBJECT: "JSON, but no object.",
    DeadLetterReason.PATH_MISSING: "Nothing lies at `input.text_path`.",
    DeadLetterReason.NOT_A_STRING: "What lies there is no string.",
    DeadLetterReason.EMPTY_TEXT: "The text is empty, or has nothing that can be seen: white space, "
    "control and zero-width characters.",
    DeadLetterReason.TOO_MANY_TOKENS: "More tokens than the model takes, with "
    '`input.overflow = "dead_letter"`.',
    DeadLetterReason.TOKENISER_FAILED: "The tokenizer failed on this text alone.",
    DeadLetterReason.MODEL_FAILED: "The model failed on this text alone.",
    DeadLetterReason.RESULT_TOO_LARGE: "The result is larger than the output topic takes.",
    DeadLetterReason.RESULT_REFUSED: "The output topic refuses the result; the message has the "
    "broker's words.",
}


class MarkersMissing(Exception):
    """The README has no place for a table; the message names the markers."""


def settings_table() -> str:
    """Every option with its names, default and bounds."""
    head = ("Setting", "Flag", "Environment", "Default", "Bounds", "Description")
    return _table(head, (_setting(option) for option in options()))


def _setting(option: Option) -> Sequence[str]:
    return (
        f"`{option.path}`",
        f"`{option.flag}`",
        ", ".join(f"`{name}`" for name in option.env),
        _default(option.field.default),
        _bounds(option),
        option.field.description or "",
    )


def _default(value: Any) -> str:
    if value is None:
        return "none"
    return f"`{str(value).lower()}`" if isinstance(value, bool) else f"`{value}`"


def _bounds(option: Option) -> str:
    choices = [f"`{choice}`" for choice in _choices(option.field.annotation)]
    limits = [
        f"{symbol} {getattr(bound, name)}"
        for bound in option.field.metadata
        if isinstance(bound, BaseMetadata)
        for name, symbol in _SYMBOLS.items()
        if hasattr(bound, name)
    ]
    return ", ".join(choices + limits)


def _choices(annotation: Any) -> Iterator[str]:
    """Members of a Literal, also of one in a union."""
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for part in get_args(annotation):
            yield from _choices(part)


def metrics_table() -> str:
    """Every series of our own, by the name under which Prometheus stores it."""
    catalogues = (Metrics(), PoolMetrics())
    labels = {
        # The library has no public way to ask a collector for its label names.
        c._name: c._labelnames  # noqa: SLF001
        for metrics in catalogues
        for c in vars(metrics).values()
        if isinstance(c, MetricWrapperBase)
    }
    # What both export is told in a worker's words.
    families = {f.name: f for metrics in reversed(catalogues) for f in metrics.registry.collect()}
    order = dict.fromkeys(f.name for metrics in catalogues for f in metrics.registry.collect())
    rows = (
        (
            f"`{exported_name(families[name])}`",
            families[name].type,
            ", ".join(f"`{label}`" for label in labels[name]),
            families[name].documentation,
        )
        for name in order
        if name in labels
    )
    return _table(("Metric", "Type", "Labels", "Description"), rows)


def exported_name(family: Metric) -> str:
    """A family's name with the suffix that its type gets on the wire."""
    return family.name + _SUFFIXES.get(family.type, "")


def messages_tables() -> str:
    """Members of every message, nested ones by their path."""
    parts = []
    for model in (TextMessage, Classification, DeadLetter):
        schema = model.model_json_schema()
        table = _table(("Member", "Type", "Description"), _members(schema, schema))
        parts.append(f"**{model.__name__}**: {schema['description']}\n\n{table}")
    return "\n\n".join(parts)


def _members(schema: dict[str, Any], root: dict[str, Any], prefix: str = "") -> Iterator[list[str]]:
    required = schema.get("required", [])
    for name, declared in schema["properties"].items():
        body = _resolved(declared, root)
        items = _resolved(body.get("items", {}), root)
        optional = "" if name in required else ", optional"
        about = declared.get("description") or body.get("description", "")
        yield [f"`{prefix}{name}`", _type(body, items) + optional, about]
        if "properties" in body:
            yield from _members(body, root, f"{prefix}{name}.")
        if "properties" in items:
            yield from _members(items, root, f"{prefix}{name}[].")


def _resolved(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    found: dict[str, Any] = root["$defs"][reference.rpartition("/")[2]] if reference else node
    return found


def _type(body: dict[str, Any], items: dict[str, Any]) -> str:
    if "anyOf" in body:
        return " or ".join(part["type"] for part in body["anyOf"])
    if items:
        return f"array of {items['type']}s"
    return str(body.get("format", body["type"]))


def reasons_table() -> str:
    """The closed list of reasons; a reason without an explanation is a KeyError."""
    rows = ((f"`{reason}`", _REASONS[reason]) for reason in DeadLetterReason)
    return _table(("Reason", "When"), rows)


def commands_table() -> str:
    """The commands as `streamlabel --help` lists them."""
    environment = child_environment(COLUMNS="200", NO_COLOR="1")
    program = [sys.executable, "-P", "-m", "worker", "--help"]
    told = subprocess.run(program, env=environment, check=True, capture_output=True, text=True)
    listed = re.findall(r"^ {4}(\w+) {2,}(.+)$", told.stdout, flags=re.MULTILINE)
    rows = ((f"`streamlabel {name}`", about) for name, about in listed)
    return _table(("Command", "What it does"), rows)


TABLES: dict[str, Callable[[], str]] = {
    "commands": commands_table,
    "settings": settings_table,
    "metrics": metrics_table,
    "messages": messages_tables,
    "reasons": reasons_table,
    "performance": markdown,
}


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def updated(text: str) -> str:
    """The README's text with every table written anew.

    Raises:
        MarkersMissing: a table has no place.
    """
    for name, make in TABLES.items():
        begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
        before, opened, rest = text.partition(begin)
        _, closed, after = rest.partition(end)
        if not (opened and closed):
            raise MarkersMissing(f"no {begin} ... {end}")
        text = f"{before}{begin}\n{make()}\n{end}{after}"
    return text


def main(argv: Sequence[str] | None = None, readme: Path = README) -> int:
    """Write the tables, or with `--check` return 1 where one is out of date."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.readme", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on drift")
    check = parser.parse_args(argv).check
    old = readme.read_text(encoding="utf-8")
    try:
        new = updated(old)
    except MarkersMissing as error:
        sys.stderr.write(f"{readme.name}: {error}\n")
        return 1
    if check and new != old:
        sys.stderr.write(f"{readme.name} is stale: run python -m benchmarks.readme\n")
        return 1
    readme.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
