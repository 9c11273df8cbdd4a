"""`streamlabel`: reads the command line, loads the settings, calls the command.

Runs on the main thread. Exit codes: 0 done, 1 failed, 2 wrong usage. Imports no command's heavy
rooms; each command does that when it runs.
"""

from __future__ import annotations

import argparse
import difflib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NoReturn, Protocol, get_args, get_origin

from worker.core.visible import visible
from worker.errors import SettingsError, StreamlabelError
from worker.settings import Loaded, Option, find_config, load, options

# Only the command that was asked for is imported: the others' rooms would slow down `--help`.
COMMANDS = {
    "run": "run a worker",
    "demo": "watch a stream of posts being labelled, on this machine",
    "classify": "label texts with no Kafka",
    "topics": "create or describe the topics",
    "check": "check settings, broker, topics, records and model",
    "bench": "measure engine, throughput and latency on this machine",
    "plan": "turn a bench into settings, workers, partitions",
    "top": "watch a worker in this terminal",
    "audit": "prove from the topics alone that every promise held",
}

_TELL_THEMSELVES = {"run", "check"}  # what looks odd about the settings

# They bring a broker of their own unless one is named: a ./streamlabel.toml may name production's.
_NO_SEARCH = {"demo", "bench"}

DONE, FAILED, USAGE = 0, 1, 2
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


class Command(Protocol):
    """What a module in this folder offers."""

    OPTIONS: tuple[str, ...]
    __doc__: str | None

    def add_arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, args: argparse.Namespace, loaded: Loaded) -> int: ...


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):  # LC_ALL=C, say, has no letters but ASCII's
        sys.stdout.reconfigure(errors="backslashreplace")
    args, unknown = _parser(argv).parse_known_args(argv)
    if unknown:
        _refuse(args.command_parser, unknown)
    command: Command = args.command_module
    try:
        code = command.run(args, _settings(args, command))
        print(end="", flush=True)  # here, where a failure can still be told
    except SettingsError as error:
        print(f"streamlabel: wrong settings\n{_indented(error)}", file=sys.stderr)
        return USAGE
    except StreamlabelError as error:
        print(f"streamlabel: {visible(str(error))}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _turn_stdout_away()  # its reader is gone (`| head`): end as quietly as other tools do
        return FAILED
    except OSError as error:
        if _stdout_works():
            raise
        _turn_stdout_away()
        print(f"streamlabel: standard output can't be written: {error.strerror}", file=sys.stderr)
        return FAILED
    return code


def _stdout_works() -> bool:
    try:
        print(flush=True)
    except OSError:
        return False
    return True


def _turn_stdout_away() -> None:
    """So that the interpreter's last flush does not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _refuse(parser: argparse.ArgumentParser, unknown: Sequence[str]) -> NoReturn:
    """Name the flags that are none, and the nearest ones; what follows a flag may be a secret."""
    flags = [argument.partition("=")[0] for argument in unknown if argument.startswith("-")]
    known = [flag for action in parser._actions for flag in action.option_strings]  # noqa: SLF001
    near = [difflib.get_close_matches(flag, known, n=1) for flag in flags]
    hints = " ".join(dict.fromkeys(found[0] for found in near if found))
    told = (" ".join(flags) or str(len(unknown))) + (f"; did you mean {hints}?" if hints else "")
    parser.error(f"unrecognized arguments: {told}")


def _settings(args: argparse.Namespace, command: Command) -> Loaded:
    given = vars(args)
    flags = {o.path: given[o.path] for o in _options_of(command) if o.path in given}
    search = args.command_name not in _NO_SEARCH
    loaded = load(flags, find_config(given.get("config"), search=search))
    if args.command_name not in _TELL_THEMSELVES:
        for warning in loaded.warnings:
            print(f"streamlabel: {visible(warning)}", file=sys.stderr)
    return loaded


def _options_of(command: Command) -> list[Option]:
    return [o for o in options() if o.path.startswith(command.OPTIONS or ("\0",))]


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="streamlabel",
        description="Labels a Kafka topic of texts with a transformer model.",
        epilog="`streamlabel COMMAND --help` tells more. Settings come from flags, then "
        "STREAMLABEL_... variables, then the settings file, then defaults.",
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name, words in COMMANDS.items():
        sub = commands.add_parser(
            name, help=words, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name in argv[:1]:
            module: Command = importlib.import_module(f"worker.cli.{name}")
            sub.description = module.__doc__
            module.add_arguments(sub)
            _add_settings(sub, module)
            sub.set_defaults(command_module=module, command_name=name, command_parser=sub)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"streamlabel {version('streamlabel')}")
        parser.exit()


def _add_settings(parser: argparse.ArgumentParser, command: Command) -> None:
    chosen = _options_of(command)
    if not chosen:
        return
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="settings file, TOML [STREAMLABEL_CONFIG, then ./streamlabel.toml if it exists]",
    )
    group = parser.add_argument_group("settings")
    for option in chosen:
        _add_flag(group, option)


def _add_flag(group: argparse._ArgumentGroup, option: Option) -> None:
    # SUPPRESS keeps a flag that was not given out of the namespace, so that "not given" and
    # "given as the default" stay two things. `%` would start one of argparse's placeholders.
    text = f"{option.field.description} [{_default(option)}]".replace("%", "%%")
    action = argparse.BooleanOptionalAction if option.is_switch else "store"
    metavar = {} if option.is_switch else {"metavar": _metavar(option)}
    group.add_argument(
        option.flag,
        dest=option.path,
        default=argparse.SUPPRESS,
        help=text,
        action=action,
        **metavar,  # type: ignore[arg-type]
    )


def _metavar(option: Option) -> str:
    kinds = [option.field.annotation, *get_args(option.field.annotation)]
    choices = next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())
    return f"{{{','.join(choices)}}}" if choices else option.path.rpartition(".")[2].upper()


def _default(option: Option) -> str:
    default = option.field.default
    return "none" if default is None else str(default)


def _indented(error: Exception) -> str:
    return "\n".join(f"  {line}" for line in visible(str(error)).splitlines())
