"""Watch a worker in a terminal: the page's picture, over the worker's HTTP.

streamlabel top
streamlabel top http://10.0.0.7:9100
streamlabel top --once
STREAMLABEL_HTTP_TOKEN_FILE=/run/secrets/token streamlabel top http://10.0.0.7:9100

Ctrl-C ends it. Where the output is no terminal it prints a line a second. A worker that goes is
waited for, and watched again. Exits 1 where nobody answers at the start.
"""

from __future__ import annotations

import argparse
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from worker.settings import Loaded

OPTIONS = ("http.token",)

_MINUTE: Final = 60
_AGAIN: Final = 2.0  # seconds
# A picture may hold anything: it comes from whoever listens there.
_STRANGE: Final = (
    *(ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError),
)

Shown = dict[str, Any]
Show = Callable[[Shown, str], None]  # a picture, and why no newer one comes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which worker, and for how long."""
    parser.add_argument(
        "url",
        nargs="?",
        default="http://127.0.0.1:9100",
        metavar="URL",
        help="the worker's address [http://127.0.0.1:9100]",
    )
    parser.add_argument("--once", action="store_true", help="show one picture and end")


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Watch until Ctrl-C; returns 0.

    Raises:
        SettingsError: the URL is none.
        StreamlabelError: nobody answers there.
    """
    from rich.console import Console
    from rich.live import Live

    from worker.http.terminal import line, screen

    console, given = Console(highlight=False), loaded.settings.http.token
    token = given.get_secret_value() if given else ""
    with contextlib.suppress(KeyboardInterrupt):  # the way to end it
        if args.once:
            _watch(
                args.url,
                token,
                lambda shown, gone: console.print(screen(shown, console.width, gone)),
                once=True,
            )
        elif not console.is_terminal:
            _watch(args.url, token, lambda shown, gone: print(gone or line(shown), flush=True))
        else:
            with Live(console=console, screen=True, auto_refresh=False) as live:
                _watch(
                    args.url,
                    token,
                    lambda shown, gone: live.update(
                        screen(shown, console.width, gone), refresh=True
                    ),
                )
    return 0


def _watch(url: str, token: str, show: Show, *, once: bool = False) -> None:
    from worker.clock import SystemClock
    from worker.http.client import WatchError, snapshots

    clock, rates = SystemClock(), deque[float | None](maxlen=_MINUTE)
    last: Shown | None = None
    while True:
        try:
            for shown in snapshots(url, token):
                rates.append(shown["texts_per_second"])
                last = shown | {"history": list(rates)}
                show(last, "")
                if once:
                    return
        except _STRANGE as error:
            raise WatchError(f"{url} shows what this version does not know") from error
        except WatchError as error:
            if last is None:
                raise
            show(last, f"{error}; trying again")
        clock.sleep(_AGAIN)
