"""Check settings, limits, broker, topics, schema registry, newest records and model.

Prints the settings that differ from the defaults, with their origin (secrets hidden). Then checks
each part, and says how to fix what fails. Joins no group, commits nothing and shows no text.
Exits 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from worker.cli.verdicts import CheckResult, attempt, concerned
from worker.core.counted import counted
from worker.core.visible import visible
from worker.settings import Loaded, Option, Settings, inline, options

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

OPTIONS = ("",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what to print."""
    parser.add_argument(
        "--all", action="store_true", help="show all settings, also those at their defaults"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Print the settings and the verdicts; return 0 if every check passed, else 1."""
    from worker.logs import configure

    configure(loaded.settings.log.level, loaded.settings.log.format)
    listed = [o for o in options() if args.all or differs(o, loaded.settings)]
    if args.json:
        verdicts = [attempt(name, loaded.settings) for name in concerned(loaded.settings)]
        print(json.dumps(_document(loaded, listed, verdicts)))
    else:
        verdicts = _print(loaded, listed)
    return 0 if all(verdict.ok for verdict in verdicts) else 1


def differs(option: Option, settings: Settings) -> bool:
    """Return whether a setting has another value than its default."""
    return bool(_value(option, settings) != option.field.default)


def shown(option: Option, settings: Settings) -> str:
    """Return a setting's value for people: `-` if it has none, `(hidden)` for a secret."""
    value = _value(option, settings)
    if value in (None, {}):
        return "-"
    if option.secret:
        return "(hidden)"
    return inline(value) if option.is_toml else str(value)


def _value(option: Option, settings: Settings) -> Any:
    value: Any = settings
    for step in option.path.split("."):
        value = getattr(value, step)
    return value


def _document(
    loaded: Loaded, listed: Sequence[Option], verdicts: Sequence[CheckResult]
) -> dict[str, Any]:
    return {
        "ok": all(verdict.ok for verdict in verdicts),
        "settings": {
            option.path: {
                "value": _plain(option, loaded.settings),
                "from": loaded.origins.get(option.path, "default"),
            }
            for option in listed
        },
        "file": str(loaded.file) if loaded.file else None,
        "warnings": list(loaded.warnings),
        "verdicts": [verdict._asdict() for verdict in verdicts],
    }


def _plain(option: Option, settings: Settings) -> Any:
    """Return a value that JSON can hold, without secrets."""
    value = _value(option, settings)
    return value if isinstance(value, bool | int | float | None) else shown(option, settings)


def _print(loaded: Loaded, listed: Sequence[Option]) -> list[CheckResult]:
    """Print the settings, then each verdict as soon as it is known."""
    from rich.console import Console

    console = Console(highlight=False)
    if listed:
        console.print(_table(loaded, listed))
    console.print(
        f"settings file: {visible(str(loaded.file or 'none'))}", markup=False, soft_wrap=True
    )
    if others := len(options()) - len(listed):
        kind = "other setting" if listed else "setting"
        verb = "has its default" if others == 1 else "have their defaults"
        console.print(f"{counted(others, kind)} {verb} (--all shows them)\n")
    for warning in loaded.warnings:
        console.print(f"[yellow]![/] {warning}", soft_wrap=True)
    verdicts = []
    for name in concerned(loaded.settings):
        verdicts.append(verdict := attempt(name, loaded.settings))
        _print_line(
            console, "[green]ok[/]  " if verdict.ok else "[red]FAIL[/]", name, verdict.detail
        )
        for warning in verdict.warnings:
            _print_line(console, "[yellow]warn[/]", name, warning)
    return verdicts


def _print_line(console: Console, mark: str, name: str, text: str) -> None:
    console.print(f"{mark} {name}: ", end="")
    # Soft wrapping keeps a command in the text fit to be copied. A label may hold anything, so the
    # text is made visible and is no markup.
    console.print(visible(text), markup=False, soft_wrap=True)


def _table(loaded: Loaded, listed: Sequence[Option]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("setting", "value", "from"):
        table.add_column(column, overflow="fold")
    for option in listed:
        value = visible(shown(option, loaded.settings))
        origin = loaded.origins.get(option.path) or "[dim]default[/]"
        table.add_row(option.path, value.replace("[", r"\["), origin)
    return table
