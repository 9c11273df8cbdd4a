"""Runs one worker of a pool: the program of each child of `streamlabel run --processes N`.

Owns: the child's stdin (settings, then questions and orders) and stdout (reports).
Thread: main runs the worker; `parent-watch` reads stdin until it ends with the parent.
Must not import: kafka, torch; no module of a worker imports this one.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

from worker.clock import SystemClock
from worker.errors import SettingsError, StreamlabelError
from worker.exits import leave
from worker.http.feeds import PageFeeds
from worker.http.health import Health
from worker.logs import configure, get_logger
from worker.metrics import Metrics
from worker.pool.orders import ChildModel, ModelOrders
from worker.pool.reports import Reporter
from worker.settings import load
from worker.signals import catch

_MARGIN = 5.0  # seconds beyond `shutdown_timeout`


def main() -> int:
    """Run one worker until a signal stops it; return the exit code, as `streamlabel run` does."""
    return leave(_run())


def _run() -> int:
    lines = _lines(sys.stdin.fileno())
    config = json.loads(next(lines))
    settings = load(config["settings"], environ={}).settings
    configure(settings.log.level, settings.log.format, slot=config["slot"])
    stop = threading.Event()
    # A second signal changes nothing: a platform may signal all processes, and the parent signals
    # as well. The parent kills a child that does not end in time. SIGHUP is for the parent: it may
    # mean that the settings are to be read again.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    catch(lambda *_: stop.set())
    # Imported after the handlers are set: a signal must not be lost meanwhile.
    from worker.inference.warm import loading  # noqa: PLC0415
    from worker.runtime.serve import serve  # noqa: PLC0415

    bound = settings.shutdown_timeout + _MARGIN
    pipe = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # A library's print must not end up between the reports.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def expose(
        metrics: Metrics, health: Health, feeds: PageFeeds | None, changes: ChildModel
    ) -> Reporter:
        reporter = Reporter(pipe, metrics, health, feeds)
        orders = ModelOrders(config["settings"], changes, reporter.wake)
        reporter.model = orders.state

        def take(line: bytes) -> None:
            document = json.loads(line)
            if "order" in document:
                orders.obey(document["order"])
            else:
                reporter.ask(document["text"], document["record"])

        watch_args = (lines, take, stop, bound)
        threading.Thread(
            target=_watch_parent, args=watch_args, name="parent-watch", daemon=True
        ).start()
        return reporter

    try:
        serve(settings, stop, loading, expose, page=config["page"])
    except SettingsError:
        return 2
    except StreamlabelError:
        return 1  # the last report has told the parent why
    except Exception:  # noqa: BLE001 - logged with its stack, without the frames' variables
        get_logger(__name__).exception("stopped by an unknown error")
        return 1
    return 0


def _watch_parent(
    lines: Iterator[bytes], take: Callable[[bytes], None], stop: threading.Event, bound: float
) -> None:
    """Pass questions and orders on until stdin ends: the parent is gone.

    Then drain as on SIGTERM, and exit after `bound` seconds at the latest.
    """
    for line in lines:
        take(line)
    stop.set()
    SystemClock().sleep(bound)
    os._exit(1)


def _lines(pipe: int) -> Iterator[bytes]:
    """Yield complete lines; a last line without a line break is dropped."""
    # Not the buffered reader: this thread would hold its lock for ever, and the interpreter's exit
    # would wait for it.
    rest = b""
    while read := os.read(pipe, 1 << 16):
        *lines, rest = (rest + read).split(b"\n")
        yield from lines
