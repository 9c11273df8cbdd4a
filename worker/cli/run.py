"""Run a worker: read texts from Kafka, label them, publish the results.

Stops on SIGTERM, SIGINT or SIGHUP: drains, commits, leaves the group. Another signal, a second or
more after the first, stops at once.
With --processes N, N such workers share this machine, and a parent that is small watches them.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Any

from worker.errors import SettingsError, StreamlabelError
from worker.settings import HttpSettings, Loaded, Settings
from worker.signals import Insistence, catch

if TYPE_CHECKING:  # a command's heavy rooms are imported when it runs
    from worker.clock import Clock
    from worker.metrics import Metrics
    from worker.runtime.box import Askable
    from worker.runtime.health import Health
    from worker.runtime.onlookers import Onlookers
    from worker.runtime.page.picture import Exported
    from worker.runtime.page.posts import Posted
    from worker.runtime.tracing import Tracing

OPTIONS = ("",)

_NONE: AbstractContextManager[object] = nullcontext()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Every setting is a flag; the command has none of its own."""
    parser.set_defaults()


def run(args: argparse.Namespace, loaded: Loaded) -> int:  # noqa: ARG001 - the commands' signature
    """Run until stopped.

    Returns:
        0 after a clean stop, 1 after a fault.

    Raises:
        SettingsError: the model or this machine contradicts a setting.
    """
    from worker.logs import configure, get_logger
    from worker.runtime.door import raise_file_limit

    settings, log = loaded.settings, get_logger(__name__)
    configure(settings.log.level, settings.log.format)
    raise_file_limit()
    for warning in loaded.warnings:
        log.warning(warning)
    try:
        if settings.processes > 1:
            _supervise(settings)
        else:
            _work(settings)
    except StreamlabelError:
        raise
    except Exception:
        log.exception("stopped by an unknown error")
        return 1
    return 0


def _work(settings: Settings) -> None:
    stop = threading.Event()
    stop_on_signals(stop)
    http = settings.http

    def face(
        metrics: Metrics, health: Health, onlookers: Onlookers | None
    ) -> AbstractContextManager[object]:
        return _http(http, metrics, health, onlookers.posts, onlookers.box) if onlookers else _NONE

    serve(settings, stop, face, page=http.enabled)


def _supervise(settings: Settings) -> None:
    from worker.clock import SystemClock
    from worker.runtime.pool.child import command
    from worker.runtime.pool.supervisor import Pool

    stop = threading.Event()
    pool = Pool(settings, command(), SystemClock(), stop)
    stop_on_signals(stop, pool.kill)
    http = settings.http
    with _http(http, pool.totals, pool, pool, pool.box) if http.enabled else _NONE:
        pool.run()


def _http(
    settings: HttpSettings, metrics: Exported, health: Health, posted: Posted, box: Askable
) -> AbstractContextManager[object]:
    from worker.runtime.http import HttpServer

    return closing(HttpServer(settings, metrics, health, posted, box))


def serve(
    settings: Settings,
    stop: threading.Event,
    face: Callable[[Metrics, Health, Onlookers | None], AbstractContextManager[object]],
    *,
    page: bool,
) -> None:
    """Be one worker until `stop`.

    Args:
        settings: this worker's own.
        stop: set from a signal handler.
        face: shows the worker to the outside for as long as its `with` lasts.
        page: whether people look on, be it at another process's page.

    Raises:
        StreamlabelError: what stopped the worker.
    """
    from importlib.metadata import version

    from worker.clock import SystemClock
    from worker.metrics import Metrics
    from worker.runtime.launch import Launcher
    from worker.runtime.onlookers import Onlookers
    from worker.runtime.progress import Progress
    from worker.runtime.state import State

    metrics, clock = Metrics(), SystemClock()
    tracing = _tracing(settings, clock)
    metrics.build.info({"version": version("streamlabel")})
    progress = Progress(settings.stall_timeout, metrics, clock)
    onlookers = Onlookers.on(settings.http, clock) if page else None
    with closing(tracing), face(metrics, progress, onlookers):
        progress.move(State.WARMING)
        launcher = Launcher(
            settings, metrics, progress, clock, stop, onlookers=onlookers, tracing=tracing
        )
        launcher.look_ahead()
        launcher.run(*_model(settings, metrics))


def _tracing(settings: Settings, clock: Clock) -> Tracing:
    from worker.runtime.tracing import Untraced

    if not settings.tracing.sample_ratio:
        return Untraced()
    try:
        from worker.runtime.spans import exporting
    except ImportError as error:
        raise SettingsError(
            f"tracing.sample_ratio = {settings.tracing.sample_ratio:g} needs OpenTelemetry "
            f"({error}): pip install 'streamlabel[tracing]', or set it to 0"
        ) from error
    return exporting(settings, clock)


def _model(settings: Settings, metrics: Any) -> tuple[Any, Any]:
    from worker.inference.loading import load
    from worker.logs import get_logger

    log = get_logger(__name__)
    log.info("loading the model", model=settings.model.name)

    def ready() -> tuple[Any, Any]:
        tokeniser, classifier = load(settings.model, settings.batch.forward_tokens)
        classifier.warm_up()
        return tokeniser, classifier

    # On a thread that ends, and OpenMP's threads with it. They belong to the thread that they compute
    # for, and where there are more of them than cores, those of the infer thread sleep at each
    # step's end instead of spinning (GOMP_SPINCOUNT in libgomp's manual): up to twice the time.
    with ThreadPoolExecutor(1, "load") as loading:
        tokeniser, classifier = loading.submit(ready).result()
    card = classifier.card
    facts = {
        "model": card.name,
        "revision": card.revision,
        "engine": card.engine,
        "dtype": card.dtype,
        "device": card.device,
    }
    metrics.model.info(facts)
    log.info(
        "model ready",
        labels=list(card.labels),
        max_tokens=card.max_tokens,
        forward_tokens=card.forward_tokens,
        **facts,
    )
    return tokeniser, classifier


def stop_on_signals(stop: threading.Event, at_once: Callable[[], None] = lambda: None) -> None:
    """A signal sets `stop`; one that insists calls `at_once` and ends the process."""
    from worker.clock import SystemClock

    insistence = Insistence(SystemClock())

    def handle(number: int, _: object) -> None:
        name = signal.Signals(number).name
        if insistence.grows():
            # Not a clean end: what is in flight comes again to whoever takes the partitions over.
            os.write(sys.stderr.fileno(), f"{name} again: stopping at once\n".encode())
            at_once()
            os._exit(1)
        stop.set()

    catch(handle)
