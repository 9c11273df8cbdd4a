"""The argument parser: short help, and short errors that suggest a fix.

Owns: the list of commands, the layout of --help, the texts of usage errors.
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
from typing import Any, Final, NoReturn, Protocol

from worker.cli.flags import HELP_ALL, add_config, add_settings, options_of
from worker.core.visible import visible
from worker.settings import Loaded

# Only the requested command is imported: the imports of the others would slow `--help` down.
COMMANDS: Final = {
    "demo": "label a stream of sample posts on this machine",
    "init": "write a commented settings file",
    "check": "check settings, broker, topics, records and model",
    "topics": "create or describe the topics",
    "run": "run a worker",
    "top": "watch a worker in this terminal",
    "audit": "verify delivery from the topics alone",
    "dead-letters": "count, show and replay dead letters",
    "backfill": "label a range of the input once, and verify it",
    "offsets": "show or reset a group's offsets",
    "classify": "label texts without Kafka",
    "routes": "show the routes, and test where texts would go",
    "calibrate": "fit temperature and thresholds to labelled texts",
    "model": "fetch and check the model before a worker starts",
    "shadow": "report how a second model compares with the one in use",
    "bench": "measure engine, throughput and latency on this machine",
    "plan": "derive settings, workers and partitions from a bench",
    "completion": "print a shell completion script",
}

# These read no settings file, so that a broken one does not stop them.
READ_NO_FILE: Final = {"init", "completion"}

USAGE_ERROR: Final = 2

_WIDEST: Final = 100  # columns


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
        """Wrap, but not at a hyphen, nor between `[default:` and the default."""
        text, mark, default = " ".join(text.split()).rpartition(" [default: ")
        glue = "\N{NO-BREAK SPACE}" if len(mark + default) <= width else " "
        text += mark.rstrip() + glue + default if mark else default
        lines = textwrap.wrap(text, width, break_on_hyphens=False)
        return [line.replace(glue, " ") for line in lines]


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


def _fill(parser: Parser, name: str, *, every: bool) -> None:
    command: Command = importlib.import_module(f"worker.cli.{name.replace('-', '_')}")
    parser.description = command.__doc__
    command.add_arguments(parser)
    if taken := options_of(command.OPTIONS):
        if name not in READ_NO_FILE:
            add_config(parser)
        add_settings(parser, taken, every=every)
    parser.shorten_usage()
    parser.set_defaults(command=command, command_name=name, command_parser=parser)


def _is_needed(action: argparse.Action) -> bool:
    return action.required or not action.option_strings


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"streamlabel {version('streamlabel')}")
        parser.exit()
