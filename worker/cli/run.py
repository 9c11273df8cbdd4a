"""Run a worker: read texts from Kafka, label them, publish the results.

SIGTERM or SIGINT stops it: it finishes the records in flight, commits and leaves the group. A
second signal, a second or more later, stops it at once. SIGHUP makes a worker with a settings file
read it again and change to the model that it names; it stops a worker without one, and one that
runs in a terminal. With --processes N, a parent process without a model runs N workers on this
machine and restarts any that dies.
"""

from __future__ import annotations

import argparse
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING

from worker.errors import StageCrashed, StreamlabelError
from worker.settings import Loaded
from worker.signals import HANG_UP, is_daemon, stop_on_signals

if TYPE_CHECKING:  # imported when the command runs, not for its --help
    from worker.http.ask import SupportsAsk
    from worker.http.feeds import PageFeeds
    from worker.http.health import Health
    from worker.http.history import MetricsSource
    from worker.http.model import ModelControl, ModelRequests
    from worker.http.notes import NotesSource
    from worker.metrics import Metrics
    from worker.runtime.serve import Expose

    Requests = Callable[[ModelControl], AbstractContextManager[ModelRequests | None]]

OPTIONS = ("",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: every setting is a flag, and the command has no others."""


def run(args: argparse.Namespace, loaded: Loaded) -> int:  # noqa: ARG001 - as in every command
    """Run until stopped.

    Returns:
        0 after a clean stop.

    Raises:
        SettingsError: a setting does not fit the model or this machine.
        Fatal: the fault that stopped the worker.
    """
    from worker.http.connections import raise_file_limit
    from worker.logs import configure, get_logger

    settings, log = loaded.settings, get_logger(__name__)
    configure(settings.log.level, settings.log.format)
    raise_file_limit()
    if loaded.file:
        log.info("settings file read", file=str(loaded.file))
    for warning in loaded.warnings:
        log.warning(warning)
    try:
        if settings.processes > 1:
            _supervise(loaded)
        else:
            _work(loaded)
    except StreamlabelError:
        raise
    except Exception as error:
        log.exception("stopped by an unknown error")
        raise StageCrashed.by(error, "stopped by an unknown error") from error
    return 0


def _work(loaded: Loaded) -> None:
    stop, triggers = threading.Event(), queue.SimpleQueue[str]()
    # Before the imports, which take a while: a signal must not be lost.
    stop_on_signals(stop, on_hang_up=_on_hang_up(loaded, triggers))
    from worker.inference.warm import loading
    from worker.runtime.reload import SettingsReload
    from worker.runtime.serve import serve

    def requests(changes: ModelControl) -> SettingsReload:
        return SettingsReload(loaded, changes, triggers)

    settings = loaded.settings
    serve(settings, stop, loading, expose(loaded, requests), page=settings.http.enabled)


def expose(loaded: Loaded, requests: Requests = lambda _: nullcontext()) -> Expose:
    """Return the function that serves one worker's metrics, health and page over HTTP.

    Args:
        loaded: the settings of the worker, with their origins.
        requests: takes requests to change the worker's model; by default there are none.
    """

    @contextmanager
    def served(
        metrics: Metrics, health: Health, feeds: PageFeeds | None, changes: ModelControl
    ) -> Iterator[None]:
        with requests(changes) as taken, ExitStack() as server:
            if feeds:
                made = _http(loaded, metrics, health, feeds, feeds.ask_queue, taken)
                server.enter_context(made)
            yield

    return served


def _on_hang_up(loaded: Loaded, triggers: queue.SimpleQueue[str]) -> Callable[[], None] | None:
    """Return what SIGHUP calls; None if it stops the worker, as it does with any program."""
    if loaded.file is None or not is_daemon():
        return None
    # The one queue that a signal handler may put into while another `put` is interrupted.
    return partial(triggers.put, HANG_UP)


def _supervise(loaded: Loaded) -> None:
    from worker.clock import SystemClock
    from worker.pool.child import command
    from worker.pool.supervisor import Pool
    from worker.runtime.reload import SettingsReload

    stop, triggers = threading.Event(), queue.SimpleQueue[str]()
    pool = Pool(loaded.settings, command(), SystemClock(), stop)
    stop_on_signals(stop, pool.kill, _on_hang_up(loaded, triggers))
    with SettingsReload(loaded, pool.model, triggers) as reload, ExitStack() as server:
        if loaded.settings.http.enabled:
            made = _http(loaded, pool.totals, pool, pool, pool.ask_router, reload)
            server.enter_context(made)
        pool.run()


def _http(
    loaded: Loaded,
    metrics: MetricsSource,
    health: Health,
    notes: NotesSource,
    ask_service: SupportsAsk,
    model: ModelRequests | None = None,
) -> AbstractContextManager[object]:
    from worker.http.server import HttpServer

    return closing(
        HttpServer(
            loaded.settings.http, metrics, health, notes, ask_service, loaded=loaded, model=model
        )
    )
