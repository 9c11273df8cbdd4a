"""The flags of the settings: one for each setting that a command takes.

Owns: the names, metavars and help texts of these flags.
Thread: main.
Must not import: torch, transformers or kafka; nor a command's module.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from worker.settings import FIRST_OPTIONS, Option, Settings, options

HELP_ALL: Final = "--help-all"

_FEW: Final = 12  # settings; a command with no more shows all of them in --help


def options_of(prefixes: tuple[str, ...]) -> list[Option]:
    """Return the settings whose paths begin with one of a command's prefixes."""
    return [option for option in options() if prefixes and option.path.startswith(prefixes)]


def add_config(parser: argparse.ArgumentParser) -> None:
    """Add --config."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings file (TOML) [default: $STREAMLABEL_CONFIG, else ./streamlabel.toml]",
    )


def add_settings(parser: argparse.ArgumentParser, taken: Sequence[Option], *, every: bool) -> None:
    """Add a flag for each setting; without `every`, --help shows only the main ones."""
    taken = list(taken)
    shown = taken if every or len(taken) <= _FEW else _first(taken)
    if len(shown) < len(taken):
        parser.epilog = f"{len(taken) - len(shown)} more settings: {parser.prog} {HELP_ALL}"
    if len(taken) > _FEW:
        text = "show all settings, by section, and exit"
        parser.add_argument(HELP_ALL, action=_HelpAll, nargs=0, help=text)
    if every:
        for section, members in _by_section(shown).items():
            _add_group(parser, f"{section or 'general'} settings", members, _summary(section))
    else:
        _add_group(parser, "settings" if shown == taken else "main settings", shown)
    for option in taken:
        if option not in shown:
            _add_flag(parser, option, hidden=True)


def _first(taken: Sequence[Option]) -> list[Option]:
    by_path = {option.path: option for option in taken}
    return [by_path[path] for path in FIRST_OPTIONS if path in by_path]


def _by_section(shown: Iterable[Option]) -> dict[str, list[Option]]:
    groups: dict[str, list[Option]] = {}
    for option in shown:
        groups.setdefault(option.section, []).append(option)
    return groups


def _summary(section: str) -> str:
    """Return the first line of a section's docstring."""
    declared = Settings.model_fields[section].annotation if section else None
    return (getattr(declared, "__doc__", None) or "").partition("\n")[0]


def _add_group(
    parser: argparse.ArgumentParser, title: str, members: Iterable[Option], description: str = ""
) -> None:
    group = parser.add_argument_group(title, description or None)
    for option in members:
        _add_flag(group, option)


def _add_flag(
    container: argparse._ActionsContainer, option: Option, *, hidden: bool = False
) -> None:
    # SUPPRESS as default keeps a flag that is not on the command line out of the namespace: "not
    # set" and "set to the default" stay two things. `%` would start one of argparse's placeholders.
    text = f"{option.field.description}{_default(option)}".replace("%", "%%")
    action = argparse.BooleanOptionalAction if option.is_switch else "store"
    metavar = {} if option.is_switch else {"metavar": _metavar(option)}
    container.add_argument(
        option.flag,
        dest=option.path,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS if hidden else text,
        action=action,
        **metavar,  # type: ignore[arg-type]
    )


def _metavar(option: Option) -> str:
    """Return the choices, FILE, DIR, N, or the last word of the name (`--group-id ID`)."""
    if option.choices:
        return f"{{{','.join(option.choices)}}}"
    if option.is_toml:
        return "TOML"
    if "Path" in str(option.field.annotation):
        return "DIR" if option.path.endswith("_dir") else "FILE"
    word = option.path.rpartition(".")[2].rpartition("_")[2]
    is_count = "int" in str(option.field.annotation) and word.endswith("s")
    return "N" if is_count else word.upper()


def _default(option: Option) -> str:
    default = option.field.default
    if default in (None, "", (), {}):
        return ""
    return f" [default: {str(default).lower() if option.is_switch else default}]"


class _HelpAll(argparse.Action):
    """Print help; `build_parser` has filled it with every setting."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.print_help()
        parser.exit()
