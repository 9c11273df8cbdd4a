"""The load thread: its result, its errors, its end, and the collector of garbage."""

from __future__ import annotations

import gc
import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from structlog.testing import capture_logs

import worker.inference.loading
from tests.support.workers import ObedientModel
from worker.errors import ModelUnavailable
from worker.inference import warm
from worker.metrics import Metrics
from worker.settings import Settings

Replace = Callable[[Callable[..., Any]], None]


@pytest.fixture
def replace(monkeypatch: pytest.MonkeyPatch) -> Iterator[Replace]:
    """Replace the loader."""
    yield lambda load: monkeypatch.setattr(worker.inference.loading, "load", load)
    gc.unfreeze()


def test_a_model_is_loaded_beside_the_caller_and_its_phases_are_logged(replace: Replace) -> None:
    model = ObedientModel()
    go, metrics = threading.Event(), Metrics()

    def load(*_: object, **__: object) -> tuple[ObedientModel, ObedientModel]:
        assert go.wait(30)
        assert not gc.isenabled()
        return model, model

    replace(load)
    with capture_logs() as logs, warm.loading(Settings(), metrics) as loaded:
        assert not loaded.done()
        go.set()
        assert loaded.result(30) == (model, model)
    assert gc.isenabled()
    assert gc.get_freeze_count()
    (ready,) = (entry for entry in logs if entry["event"] == "model ready")
    assert {"import_seconds", "load_seconds", "warm_up_seconds"} <= ready.keys()


def test_an_error_of_the_model_reaches_the_caller(replace: Replace) -> None:
    def load(*_: object, **__: object) -> None:
        raise ModelUnavailable("no such model")

    replace(load)
    with (
        warm.loading(Settings(), Metrics()) as loaded,
        pytest.raises(ModelUnavailable, match="no such model"),
    ):
        loaded.result(30)
    assert gc.isenabled()


def test_leaving_the_block_abandons_the_load(replace: Replace) -> None:
    """Even if a library swallows the first exception."""
    began, swallowed = threading.Event(), list[BaseException]()

    def load(*_: object, **__: object) -> None:
        began.set()
        try:
            for _step in itertools.count():
                pass
        except BaseException as error:  # noqa: BLE001 - as a library might
            swallowed.append(error)
        for _step in itertools.count():
            pass

    replace(load)
    with warm.loading(Settings(), Metrics()) as loaded:
        assert began.wait(30)
    assert len(swallowed) == 1
    assert "load" not in {thread.name for thread in threading.enumerate()}
    assert isinstance(loaded.exception(30), SystemExit)
    assert gc.isenabled()


def test_a_command_loads_without_collections_too(replace: Replace) -> None:
    model = ObedientModel()
    seen: list[bool] = []

    def load(*_: object, **__: object) -> tuple[ObedientModel, ObedientModel]:
        seen.append(gc.isenabled())
        return model, model

    replace(load)
    assert warm.load(Settings().model, None) == (model, model)
    assert (seen, gc.isenabled()) == ([False], True)
