"""Run a worker: read texts from Kafka, label them, publish the results.

Stops on SIGTERM, SIGINT or SIGHUP: drains, commits, leaves the group. Another signal, a second or
more after the first, stops at once.
With --processes N, N such workers share this machine, and a parent that is small watches them.
"""

from __future__ import annotations

import argparse
import threading
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING

from worker.errors import StreamlabelError
from worker.settings import HttpSettings, Loaded, Settings
from worker.signals import stop_on_signals

if TYPE_CHECKING:  # a command's heavy rooms are imported when it runs
    from worker.http.ask import SupportsAsk
    from worker.http.feeds import PageFeeds
    from worker.http.health import Health
    from worker.http.recent_posts import PostSource
    from worker.http.snapshot import MetricsSource
    from worker.metrics import Metrics

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
    from worker.inference.warm import load_model
    from worker.runtime.serve import serve

    stop = threading.Event()
    stop_on_signals(stop)
    http = settings.http

    def expose(
        metrics: Metrics, health: Health, feeds: PageFeeds | None
    ) -> AbstractContextManager[object]:
        return _http(http, metrics, health, feeds.posts, feeds.ask_queue) if feeds else _NONE

    serve(settings, stop, load_model, expose, page=http.enabled)


def _supervise(settings: Settings) -> None:
    from worker.clock import SystemClock
    from worker.pool.child import command
    from worker.pool.supervisor import Pool

    stop = threading.Event()
    pool = Pool(settings, command(), SystemClock(), stop)
    stop_on_signals(stop, pool.kill)
    http = settings.http
    with _http(http, pool.totals, pool, pool, pool.ask_router) if http.enabled else _NONE:
        pool.run()


def _http(
    settings: HttpSettings,
    metrics: MetricsSource,
    health: Health,
    posts: PostSource,
    ask_service: SupportsAsk,
) -> AbstractContextManager[object]:
    from worker.http.server import HttpServer

    return closing(HttpServer(settings, metrics, health, posts, ask_service))
