"""Runs one worker from its settings to its last commit, alone or as a process of a pool.

Owns: the parts that live as long as the worker: metrics, progress, page feeds, tracing.
Thread: the main thread.
Must not import: inference; the caller passes a function that loads the model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from contextlib import AbstractContextManager, ExitStack, closing
from importlib.metadata import version

from worker.clock import Clock, SystemClock
from worker.core.state import State
from worker.core.when import Span
from worker.errors import SettingsError
from worker.http.feeds import PageFeeds
from worker.http.health import Health
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.runtime.context import OtherSource, WorkerContext
from worker.runtime.launch import Launcher
from worker.runtime.model_changes import LoadModel, Model, ModelChanges
from worker.runtime.progress import Progress
from worker.runtime.service import Worker
from worker.runtime.shadow import Shadow
from worker.runtime.shadow_start import shadowing
from worker.runtime.tracing import Tracing, Untraced
from worker.settings import Settings
from worker.timeline import recording

Expose = Callable[[Metrics, Health, PageFeeds | None, ModelChanges], AbstractContextManager[object]]

log = get_logger(__name__)

_LOOK = 0.1  # seconds between looks for a request to stop while the model loads


def serve(
    settings: Settings,
    stop: threading.Event,
    load_model: LoadModel,
    expose: Expose,
    *,
    page: bool,
    span: Span | OtherSource | None = None,
) -> None:
    """Run one worker until `stop` is set, or until its group has labelled its range.

    Args:
        settings: of this worker.
        stop: set from a signal handler.
        load_model: loads and warms up the model meanwhile; leaving its `with` block abandons that.
        expose: makes the worker visible (over HTTP, or to a pool's parent) for the length of its
            `with` block, and lets its model be changed.
        page: True if the live page is served, by this process or by a pool's parent.
        span: the range to label, or another source of records; None for all records of the input.

    Raises:
        StreamlabelError: the reason why the worker stopped.
    """
    metrics, clock = Metrics(), SystemClock()
    tracing = _tracing(settings, clock)
    metrics.build.info({"version": version("streamlabel")})
    progress = Progress(settings.stall_timeout, metrics, clock)
    feeds = PageFeeds.on(settings.http, clock) if page else None
    changes = ModelChanges(settings, load_model, metrics, clock)
    if feeds:
        feeds.models = changes.first_offsets.models
    with (
        recording(settings.profile, clock),
        closing(tracing),
        expose(metrics, progress, feeds, changes),
        closing(changes),
        ExitStack() as resources,
    ):
        progress.move(State.WARMING)
        launcher = Launcher(
            settings,
            WorkerContext(metrics, progress, clock, stop, changes),
            feeds=feeds,
            tracing=tracing,
            span=span,
        )
        # Of another function, because a variable here would keep the model in memory when another
        # one has taken over.
        shadow = shadowing(settings, load_model, metrics, clock)
        worker = _completed(launcher, load_model(settings, metrics), stop, resources, shadow)
        if worker is not None:
            worker.run()


def _completed(
    launcher: Launcher,
    load: AbstractContextManager[Future[Model]],
    stop: threading.Event,
    resources: ExitStack,
    shadow: AbstractContextManager[Shadow | None],
) -> Worker | None:
    """Return a worker with its model, or None if it is stopped first.

    `shadow` is entered once the model is loaded: the second one is loaded beside it.
    """
    with load as loading:
        launcher.preflight()
        model = _wait_for(loading, stop)
        if model is None:
            return None
        return launcher.complete(*model, resources, resources.enter_context(shadow))


def _wait_for(loading: Future[Model], stop: threading.Event) -> Model | None:
    """Return the model, or None if the worker is stopped first; raise what its load raised."""
    while not stop.is_set():
        if wait([loading], timeout=_LOOK).done:
            return loading.result()
    log.info("stopped before the model was ready")
    return None


def _tracing(settings: Settings, clock: Clock) -> Tracing:
    ratio = settings.tracing.sample_ratio
    if not ratio:
        return Untraced()
    try:
        from worker.runtime.spans import exporting  # noqa: PLC0415 - the extra `tracing` brings it
    except ImportError as error:
        raise SettingsError(
            f"tracing.sample_ratio = {ratio:g} needs OpenTelemetry ({error}): "
            "pip install 'streamlabel[tracing]', or set it to 0"
        ) from error
    return exporting(settings, clock)
