"""The `streamlabel` command: parses the command line, loads the settings, runs the command.

Owns: exit codes (0 done, 1 failed, 2 wrong usage, 130 interrupted) and standard output's failures.
Thread: main.
Must not import: torch, transformers or kafka; a command imports them when it runs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from worker.cli.flags import options_of
from worker.cli.parser import READ_NO_FILE, USAGE_ERROR, build_parser, parse
from worker.core.visible import visible
from worker.errors import ArgumentsError, SettingsError, StreamlabelError
from worker.exits import leave
from worker.settings import Loaded, find_config, load
from worker.signals import interrupt_as_our_own

_REPORT_WARNINGS_THEMSELVES = {"run", "check"}
# They start a broker of their own unless one is named; ./streamlabel.toml may name production's.
_NO_SEARCH = {"demo", "bench"}

# Kubernetes shows what a container wrote there as the reason why it ended; at most 4,096 bytes, and
# 2,048 where it takes the end of the log instead (terminationMessagePolicy).
TERMINATION_LOG = Path("/dev/termination-log")
_LONGEST = 1_800  # bytes of the reason as JSON; a line has about 120 more
_MAIN_PROCESS = 1  # the number of a container's own process; `kubectl exec` starts others

DONE, FAILED = 0, 1
INTERRUPTED = 130  # 128 + SIGINT, as shells report it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the process's exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if isinstance(sys.stdout, io.TextIOWrapper):  # under LC_ALL=C, only ASCII can be printed
        sys.stdout.reconfigure(errors="backslashreplace")
    if not argv:
        build_parser().print_help()
        return USAGE_ERROR
    args = parse(argv)
    interrupt_as_our_own()
    return leave(_run(args))


def _run(args: argparse.Namespace) -> int:
    loaded = None
    try:
        loaded = _settings(args)
        code: int = args.command.run(args, loaded)
        print(end="", flush=True)  # a failure to write can be reported here, but not at exit
    except SettingsError as error:
        wrong = "arguments" if isinstance(error, ArgumentsError) else "settings"
        if not _told(args, loaded, f"wrong {wrong}: {'; '.join(str(error).splitlines())}"):
            print(f"streamlabel: wrong {wrong}\n{_indented(error)}", file=sys.stderr)
        return USAGE_ERROR
    except StreamlabelError as error:
        if not _told(args, loaded, str(error), error.summary):
            print(f"streamlabel: {visible(str(error))}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _discard_stdout()  # the reader is gone (`| head`): end as quietly as other tools do
        return FAILED
    except OSError as error:
        if _stdout_works():
            raise
        _discard_stdout()
        print(f"streamlabel: can't write standard output: {error.strerror}", file=sys.stderr)
        return FAILED
    return code


def _told(
    args: argparse.Namespace, loaded: Loaded | None, text: str, summary: str | None = None
) -> bool:
    """Tell platform and log why a command fails; return False if a person is still to be told.

    A worker whose log is in JSON says it in JSON too, in one line, so that a collector reads it.

    The platform gets the summary, if there is one, because its readers may not be the log's.
    """
    if os.getpid() == _MAIN_PROCESS and TERMINATION_LOG.is_file():
        with contextlib.suppress(OSError):
            TERMINATION_LOG.write_text(_shortened(visible(summary or text)), encoding="utf-8")
    style = loaded.settings.log.format if loaded else vars(args).get("log.format", "auto")
    if args.command_name != "run" or style == "plain" or (style == "auto" and sys.stderr.isatty()):
        return False
    from worker.logs import configure, get_logger

    if loaded is None:
        configure("info", style)
    get_logger("worker").error(_shortened(text))
    return True


def _shortened(text: str) -> str:
    """Return a text in one line, a long one without its middle: the remedy is at its end."""
    text, kept = " ".join(text.split()), _LONGEST
    short = text
    while len(json.dumps(short)) > _LONGEST:  # it escapes what is not ASCII
        kept -= 20
        short = f"{text[: kept // 2]} ... {text[-kept // 2 :]}"
    return short


def _stdout_works() -> bool:
    try:
        print(flush=True)
    except OSError:
        return False
    return True


def _discard_stdout() -> None:
    """Redirect standard output to the null device, so that the flush at exit succeeds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _settings(args: argparse.Namespace) -> Loaded:
    values = vars(args)
    flags = {o.path: values[o.path] for o in options_of(args.command.OPTIONS) if o.path in values}
    name, config = args.command_name, None
    if name not in READ_NO_FILE:
        config = find_config(values.get("config"), search=name not in _NO_SEARCH)
    loaded = load(flags, config)
    if name not in _REPORT_WARNINGS_THEMSELVES:
        for warning in loaded.warnings:
            print(f"streamlabel: {visible(warning)}", file=sys.stderr)
    return loaded


def _indented(error: Exception) -> str:
    return "\n".join(f"  {line}" for line in visible(str(error)).splitlines())
