"""Print a script that completes streamlabel's commands and options in your shell.

    bash:  streamlabel completion bash > ~/.local/share/bash-completion/completions/streamlabel
    zsh:   streamlabel completion zsh > "${fpath[1]}/_streamlabel"
    fish:  streamlabel completion fish > ~/.config/fish/completions/streamlabel.fish

Start a new shell afterwards.
"""

from __future__ import annotations

import argparse
from typing import Any, Final

from worker.cli.parser import COMMANDS, Parser, build_parser
from worker.settings import Loaded, options

OPTIONS: tuple[str, ...] = ()

_SHELLS: Final = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", choices=_SHELLS, help="shell to write the script for")


def run(args: argparse.Namespace, loaded: Loaded) -> int:  # noqa: ARG001 - every command has it
    """Print the script; return 0."""
    print(script(args.shell))
    return 0


def script(shell: str) -> str:
    """Return the completion script of a shell: bash, zsh or fish."""
    import shtab

    parser = build_parser(every=True)
    parser.description = None
    values = {option.path: option.choices for option in options()}
    for command in _commands(parser):
        command.description = COMMANDS[command.prog.rpartition(" ")[2]]
        for action in command._actions:  # noqa: SLF001 - argparse has no public list of them
            _prepare(action, values, shtab.FILE, shtab.DIRECTORY)
    return shtab.complete(parser, shell)


def _commands(parser: Parser) -> list[Parser]:
    (subparsers,) = (
        action
        for action in parser._actions  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction)  # noqa: SLF001
    )
    return list(subparsers.choices.values())


def _prepare(
    action: Any, values: dict[str, tuple[str, ...]], file: object, directory: object
) -> None:
    """Shorten the action's help to a sentence, and say which values it completes to."""
    action.help = (action.help or "").partition(". ")[0].partition(" [default:")[0].rstrip(".")
    action.choices = action.choices or values.get(action.dest) or None
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    if metavar in ("FILE", "DIR"):
        action.complete = file if metavar == "FILE" else directory
