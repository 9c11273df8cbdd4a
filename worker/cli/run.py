"""Run a worker: read texts from Kafka, label them, publish the results.

Stops on SIGTERM or SIGINT: drains, commits, leaves the group; a second signal stops at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from typing import Any

from worker.errors import StreamlabelError
from worker.settings import Loaded, Settings

OPTIONS = ("",)


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

    settings, log = loaded.settings, get_logger(__name__)
    configure(settings.log.level, settings.log.format)
    for warning in loaded.warnings:
        log.warning(warning)
    stop = threading.Event()
    _stop_on_signals(stop)
    try:
        _serve(settings, stop)
    except StreamlabelError:
        raise
    except Exception:
        log.exception("stopped by an unknown error")
        return 1
    return 0


def _serve(settings: Settings, stop: threading.Event) -> None:
    from importlib.metadata import version

    from worker.clock import SystemClock
    from worker.metrics import Metrics
    from worker.runtime.http import HttpServer
    from worker.runtime.progress import Progress
    from worker.runtime.state import State

    metrics, clock = Metrics(), SystemClock()
    metrics.build.info({"version": version("streamlabel")})
    progress = Progress(settings.stall_timeout, metrics, clock)
    http = HttpServer(settings.http, metrics, progress) if settings.http.enabled else None
    try:
        progress.move(State.WARMING)
        tokeniser, classifier = _model(settings, metrics)
        from worker.runtime.launch import Launcher

        Launcher(settings, metrics, progress, clock, stop).run(tokeniser, classifier)
    finally:
        if http:
            http.close()


def _model(settings: Settings, metrics: Any) -> tuple[Any, Any]:
    from worker.inference.loading import load
    from worker.logs import get_logger

    log = get_logger(__name__)
    log.info("loading the model", model=settings.model.name)
    tokeniser, classifier = load(settings.model, settings.batch.forward_tokens)
    classifier.warm_up()
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


def _stop_on_signals(stop: threading.Event) -> None:
    def handle(number: int, _: object) -> None:
        name = signal.Signals(number).name
        if stop.is_set():
            # Not a clean end: what is in flight comes again to whoever takes the partitions over.
            os.write(sys.stderr.fileno(), f"{name} again: stopping at once\n".encode())
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
