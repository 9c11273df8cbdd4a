"""Watch a worker in a terminal: its live page, in text.

    streamlabel top
    streamlabel top http://10.0.0.7:9100
    streamlabel top --once
    STREAMLABEL_HTTP_TOKEN_FILE=/run/secrets/token streamlabel top http://10.0.0.7:9100

Ctrl-C ends it. Without a terminal it prints a line a second. If the worker goes away, it waits for
its return. Exits 1 if the worker does not answer at the start.
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Callable
from typing import Any, Final

from worker.settings import Loaded

OPTIONS = ("http.token",)

_RETRY_AFTER: Final = 2.0  # seconds
# Reading a snapshot may raise any of these: its sender may be another program.
_MALFORMED: Final = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
)

Snapshot = dict[str, Any]
Show = Callable[[Snapshot, str], None]  # a snapshot, and why no newer one arrives


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the worker's address, and how long to watch."""
    parser.add_argument(
        "url",
        nargs="?",
        metavar="URL",
        help="address of the worker [default: this machine, with http.port of the settings]",
    )
    parser.add_argument("--once", action="store_true", help="show one snapshot and exit")


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Watch until Ctrl-C; return 0.

    Raises:
        SettingsError: the URL is not one.
        StreamlabelError: no worker answers there.
    """
    from rich.console import Console
    from rich.live import Live

    from worker.http.client import address_of
    from worker.http.terminal import line, screen

    url = args.url or address_of(loaded.settings.http)
    console, secret = Console(highlight=False), loaded.settings.http.token
    token = secret.get_secret_value() if secret else ""

    def draw(snapshot: Snapshot, problem: str) -> Any:
        return screen(snapshot, console.width, problem)

    with contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is the way to end it
        if args.once:
            _watch(url, token, lambda *shown: console.print(draw(*shown)), once=True)
        elif not console.is_terminal:
            _watch(url, token, lambda new, problem: print(problem or line(new), flush=True))
        else:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                _watch(url, token, lambda *shown: live.update(draw(*shown), refresh=True))
    return 0


def _watch(url: str, token: str, show: Show, *, once: bool = False) -> None:
    from worker.clock import SystemClock
    from worker.http.client import WatchError, snapshots

    clock = SystemClock()
    last: Snapshot | None = None
    while True:
        try:
            for snapshot in snapshots(url, token):
                last = snapshot
                show(last, "")
                if once:
                    return
        except _MALFORMED as error:
            raise WatchError(f"{url} sends a snapshot that this version can't read") from error
        except WatchError as error:
            if last is None:
                raise
            show(last, f"{error}; trying again")
        clock.sleep(_RETRY_AFTER)
