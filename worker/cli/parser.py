"""The argument parser: one flag a setting, short help, and short errors that suggest a fix.

Owns: the list of commands, the flags of the settings, the texts of --help and of usage errors.
Thread: main.
Must not import: torch, transformers or kafka; nor a command's module, unless it was asked for.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import shutil
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final, NoReturn, Protocol

from worker.core.visible import visible
from worker.settings import FIRST_OPTIONS, Loaded, Option, Settings, options

# Only the requested command is imported: the imports of the others would slow `--help` down.
COMMANDS: Final = {
    "demo": "label a stream of sample posts on this machine",
    "init": "write a commented settings file",
    "check": "check settings, broker, topics, records and model",
    "topics": "create or describe the topics",
    "run": "run a worker",
    "top": "watch a worker in this terminal",
    "audit": "verify delivery from the topics alone",
    "classify": "label texts without Kafka",
    "bench": "measure engine, throughput and latency on this machine",
    "plan": "derive settings, workers and partitions from a bench",
    "completion": "print a shell completion script",
}

USAGE_ERROR: Final = 2
HELP_ALL: Final = "--help-all"

_WIDEST: Final = 100  # columns
_FEW: Final = 12  # settings; a command with no more shows all of them in --help


class Command(Protocol):
    """A command's module in this package."""

    OPTIONS: tuple[str, ...]
    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, loaded: Loaded) -> int: ...


class Formatter(argparse.HelpFormatter):
    """Wraps paragraphs, keeps indented ones as they are, and stays within 100 columns."""

    def __init__(self, prog: str) -> None:
        columns = min(_WIDEST, shutil.get_terminal_size().columns)
        super().__init__(prog, max_help_position=28, width=columns - 2)

    def add_argument(self, action: argparse.Action) -> None:
        """Make room for the longest command too, which argparse measures without its indent."""
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            self._action_max_length += self._indent_increment

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Lay a description out: examples are paragraphs whose lines are indented."""
        return "\n\n".join(
            paragraph
            if paragraph.startswith(" ")
            else textwrap.fill(paragraph, width, initial_indent=indent, subsequent_indent=indent)
            for paragraph in text.strip().split("\n\n")
        )

    def _split_lines(self, text: str, width: int) -> list[str]:
        """Keep names with a hyphen whole."""
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """A parser with a usage line of one line, and errors that suggest the nearest name."""

    def __init__(self, **kwargs: Any) -> None:
        # An abbreviation would change its meaning with the next new setting.
        super().__init__(**kwargs, formatter_class=Formatter, allow_abbrev=False)

    def shorten_usage(self) -> None:
        """Leave optional flags out of the usage line; call it after the last `add_argument`."""
        needed = [action for action in self._actions if _is_needed(action)]
        formatter = argparse.HelpFormatter("", width=1000)
        formatter.add_usage(None, needed, [], prefix="")
        self.usage = f"{self.prog} [OPTIONS] {formatter.format_help().strip()}".strip()

    def error(self, message: str) -> NoReturn:
        """Print the usage line and the message, and exit with 2."""
        usage = f"usage: {self.usage} (see `{self.prog} --help`)"
        self.exit(USAGE_ERROR, f"{usage}\n{self.prog}: error: {visible(message)}\n")

    def check_flag(self, flag: str) -> None:
        """Exit with 2 if a flag before the command is unknown, such as one of a command's own."""
        if flag not in self._option_string_actions:
            name = flag.partition("=")[0]
            hint = suggest([name], self._option_string_actions)
            self.error(f"unrecognized arguments: {name}{hint or '; options follow the command'}")

    def reject(self, unknown: Sequence[str]) -> NoReturn:
        """Exit with 2; name the unknown flags and the nearest known ones, but no values.

        A value may be a secret, as in `--kafka-sasl-pasword=...`.
        """
        flags = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
        if flags:
            hint = suggest(flags, self._option_string_actions)
            self.error(f"unrecognized arguments: {' '.join(flags)}{hint}")
        self.error(f"unrecognized arguments: {len(unknown)}, not shown in case one is a secret")


def suggest(names: Iterable[str], known: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the nearest known names, or an empty string."""
    known = list(known)
    matches = [difflib.get_close_matches(name, known, n=1) for name in names]
    nearest = " ".join(dict.fromkeys(match[0] for match in matches if match))
    return f"; did you mean {nearest}?" if nearest else ""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse a command line.

    Returns:
        The arguments, with the command's name and module as `command_name` and `command`.

    Raises:
        SystemExit: with 0 after help, with 2 after a usage error.
    """
    parser = build_parser(argv)
    first = next(iter(argv), "")
    if first.startswith("-"):
        parser.check_flag(first)
    elif first not in COMMANDS:
        parser.error(f"no such command: {first}{suggest([first], [*COMMANDS, '--help'])}")
    args, unknown = parser.parse_known_args(argv)
    if unknown:
        args.command_parser.reject(unknown)
    return args


def build_parser(argv: Sequence[str] = (), *, every: bool = False) -> Parser:
    """Return the parser, with the flags of the command in `argv`; of all commands with `every`."""
    parser = Parser(
        prog="streamlabel",
        usage="streamlabel COMMAND [OPTIONS]",
        description="Label a Kafka topic of texts with a transformer model.",
        epilog="`streamlabel COMMAND --help` shows a command's options. "
        "Start with `streamlabel demo`, or with `streamlabel init` for your own topic.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(
        title="commands", metavar="COMMAND", required=True, prog=parser.prog
    )
    for name, summary in COMMANDS.items():
        sub: Parser = commands.add_parser(name, help=summary)
        if every or name in argv[:1]:
            _fill(sub, name, every=every or HELP_ALL in argv)
    return parser


def options_of(command: Command) -> list[Option]:
    """Return the settings that a command takes as flags."""
    return [o for o in options() if command.OPTIONS and o.path.startswith(command.OPTIONS)]


def _fill(parser: Parser, name: str, *, every: bool) -> None:
    command: Command = importlib.import_module(f"worker.cli.{name}")
    parser.description = command.__doc__
    command.add_arguments(parser)
    if taken := options_of(command):
        _add_settings(parser, taken, every=every)
    parser.shorten_usage()
    parser.set_defaults(command=command, command_name=name, command_parser=parser)


def _is_needed(action: argparse.Action) -> bool:
    return action.required or not action.option_strings


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"streamlabel {version('streamlabel')}")
        parser.exit()


class _HelpAll(argparse.Action):
    """Print help; `build_parser` has filled it with every setting."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.print_help()
        parser.exit()


# -- flags of settings -------------------------------------------------------------------------


def _add_settings(parser: Parser, taken: Sequence[Option], *, every: bool) -> None:
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings file (TOML) [default: $STREAMLABEL_CONFIG, else ./streamlabel.toml]",
    )
    shown = list(taken) if every or len(taken) <= _FEW else _first(taken)
    if len(shown) < len(taken):
        parser.epilog = f"{len(taken) - len(shown)} more settings: {parser.prog} {HELP_ALL}"
    if len(taken) > _FEW:
        text = "show all settings, by section, and exit"
        parser.add_argument(HELP_ALL, action=_HelpAll, nargs=0, help=text)
        for title, members in _sections(shown).items() if every else [("main settings", shown)]:
            _add_group(parser, title, members)
    else:
        _add_group(parser, "settings", shown)
    for option in taken:
        if option not in shown:
            _add_flag(parser, option, hidden=True)


def _first(taken: Sequence[Option]) -> list[Option]:
    by_path = {option.path: option for option in taken}
    return [by_path[path] for path in FIRST_OPTIONS if path in by_path]


def _sections(shown: Iterable[Option]) -> dict[str, list[Option]]:
    """Group options by the first part of their path; the title ends in the section's summary."""
    groups: dict[str, list[Option]] = {}
    for option in shown:
        section, summary = option.section, _summary(option.section).rstrip(".")
        groups.setdefault(f"{section} ({summary})" if section else "general", []).append(option)
    return groups


def _summary(section: str) -> str:
    declared = Settings.model_fields[section].annotation if section else None
    return (getattr(declared, "__doc__", None) or "").partition("\n")[0]


def _add_group(parser: Parser, title: str, members: Iterable[Option]) -> None:
    group = parser.add_argument_group(title)
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
    if "Path" in str(option.field.annotation):
        return "DIR" if option.path.endswith("_dir") else "FILE"
    word = option.path.rpartition(".")[2].rpartition("_")[2]
    is_count = "int" in str(option.field.annotation) and word.endswith("s")
    return "N" if is_count else word.upper()


def _default(option: Option) -> str:
    default = option.field.default
    if default is None:
        return ""
    return f" [default: {str(default).lower() if option.is_switch else default}]"
