"""One worker of a pool: what `streamlabel run --processes N` starts N times. No command of its own.

Runs on the main thread of the child. Reads its order from stdin, then the box's questions, until its
end means that the parent is gone; reports on stdout.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator

from worker.clock import SystemClock
from worker.errors import SettingsError, StreamlabelError
from worker.http.feeds import PageFeeds
from worker.http.health import Health
from worker.inference.warm import load_model
from worker.logs import configure, get_logger
from worker.metrics import Metrics
from worker.pool.reports import Reporter
from worker.runtime.serve import serve
from worker.settings import load
from worker.signals import catch

_MARGIN = 5.0  # seconds beyond `shutdown_timeout`


def main() -> int:
    """Run one worker until it is told to stop; return its exit code, as `streamlabel run` does."""
    said = _lines(sys.stdin.fileno())
    order = json.loads(next(said))
    settings = load(order["settings"], environ={}).settings
    configure(settings.log.level, settings.log.format, slot=order["slot"])
    stop = threading.Event()
    # Any number of them: the parent's may come on top of that of a platform which sends it to all,
    # and it is the parent that loses patience.
    catch(lambda *_: stop.set())
    bound = settings.shutdown_timeout + _MARGIN
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Whatever a library prints must not get between the reports.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def expose(metrics: Metrics, health: Health, feeds: PageFeeds | None) -> Reporter:
        reporter = Reporter(pipe, metrics, health, feeds)
        followed = (said, reporter.hear, stop, bound)
        threading.Thread(
            target=_follow_parent, args=followed, name="parent-watch", daemon=True
        ).start()
        return reporter

    try:
        serve(settings, stop, load_model, expose, page=order["page"])
    except SettingsError:
        return 2
    except StreamlabelError:
        return 1  # the last report has told the parent why
    except Exception:  # noqa: BLE001 - with its stack, and no variables of its frames
        get_logger(__name__).exception("stopped by an unknown error")
        return 1
    return 0


def _follow_parent(
    said: Iterator[bytes], hear: Callable[[bytes], None], stop: threading.Event, bound: float
) -> None:
    """End with the parent, however that ends: drain, as at SIGTERM, and within the same time."""
    for line in said:
        hear(line)
    stop.set()
    SystemClock().sleep(bound)
    os._exit(1)


def _lines(pipe: int) -> Iterator[bytes]:
    """What comes, line by line; a line without an end is none."""
    # Not the buffered reader: its lock, held here for ever, would be waited for at the end.
    rest = b""
    while read := os.read(pipe, 1 << 16):
        *lines, rest = (rest + read).split(b"\n")
        yield from lines
