"""The load thread: its result, its errors, its end, and the collector of garbage."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import itertools
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import worker.inference.loading
from tests.support.models import make_checkpoint
from tests.support.records import CARD
from tests.support.workers import ObedientModel
from worker import exits
from worker.errors import ModelUnavailable, ModelUnchanged
from worker.inference import warm
from worker.inference.threads import in_few_threads
from worker.metrics import Metrics
from worker.settings import ModelSettings, Settings
from worker.settings import load as load_settings

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


def test_a_load_that_does_not_end_is_given_up(
    replace: Replace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No exception reaches a thread inside of a library's own code."""
    began, go = threading.Event(), threading.Event()
    given_up: list[threading.Thread] = []

    def load(*_: object, **__: object) -> None:
        while not go.is_set():
            with contextlib.suppress(BaseException):  # the request to end may come before the wait
                began.set()
                go.wait(10)

    replace(load)
    monkeypatch.setattr(warm, "_PATIENCE", 0.2)
    monkeypatch.setattr(exits, "give_up", given_up.append)
    with capture_logs() as logs:
        with warm.loading(Settings(), Metrics()):
            assert began.wait(30)
        alive = [thread.name for thread in threading.enumerate() if thread.name == "load"]
    go.set()
    for thread in given_up:
        thread.join(30)
    assert alive == ["load"]
    assert [thread.name for thread in given_up] == ["load"]
    line = logs[-1]
    assert (line["log_level"], line["model"]) == ("warning", Settings().model.name)


def test_a_command_loads_without_collections_too(replace: Replace) -> None:
    model = ObedientModel()
    seen: list[bool] = []

    def load(*_: object, **__: object) -> tuple[ObedientModel, ObedientModel]:
        seen.append(gc.isenabled())
        return model, model

    replace(load)
    assert warm.load(Settings().model, None) == (model, model)
    assert (seen, gc.isenabled()) == ([False], True)


def test_a_model_beside_another_is_loaded_in_the_background(replace: Replace) -> None:
    """With few threads and short turns of Python's lock; garbage is collected as ever."""
    model, interval = ObedientModel(), sys.getswitchinterval()
    seen: list[object] = []

    def load(*_: object, **given: object) -> tuple[ObedientModel, ObedientModel]:
        seen.append((gc.isenabled(), in_few_threads(), sys.getswitchinterval() < interval))
        seen.append((given["replaces"], given["unless"]))
        return model, model

    replace(load)
    metrics, frozen = Metrics(), gc.get_freeze_count()
    with warm.loading(Settings(), metrics, replaces=True, unless=CARD) as loaded:
        assert loaded.result(30) == (model, model)
    assert seen == [(True, True, True), (True, CARD)]
    assert (sys.getswitchinterval(), gc.get_freeze_count()) == (interval, frozen)
    assert metrics.registry.get_sample_value("streamlabel_model_info", CARD.facts) is None


def test_two_loads_at_once_leave_the_interval_of_the_lock_as_it_was(replace: Replace) -> None:
    """A model is loaded for a change while a shadow is: short turns until both are loaded."""
    model, interval = ObedientModel(), sys.getswitchinterval()
    go = {"first": threading.Event(), "second": threading.Event()}
    entered = {"first": threading.Event(), "second": threading.Event()}

    def load(settings: ModelSettings, *_: object, **__: object) -> tuple[Any, Any]:
        entered[settings.name].set()
        assert go[settings.name].wait(30)
        return model, model

    def named(name: str) -> Settings:
        return load_settings({"model.name": name}, environ={}).settings

    replace(load)
    with warm.loading(named("first"), Metrics(), beside=True) as first:
        assert entered["first"].wait(30)
        with warm.loading(named("second"), Metrics(), replaces=True) as second:
            assert entered["second"].wait(30)
            go["first"].set()
            first.result(30)
            during = sys.getswitchinterval()
            go["second"].set()
            second.result(30)
    after = sys.getswitchinterval()
    sys.setswitchinterval(interval)
    assert during < interval
    assert after == interval


def test_the_same_model_again_is_not_loaded(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    settings = load_settings(
        {"model.name": str(folder), "model.engine": "packed"}, environ={}
    ).settings
    _, classifier = warm.load(settings.model, None)
    with (
        warm.loading(settings, Metrics(), replaces=True, unless=classifier.card) as loaded,
        pytest.raises(ModelUnchanged, match="model is in use already"),
    ):
        loaded.result(60)
    make_checkpoint(folder, seed=2)
    with warm.loading(settings, Metrics(), replaces=True, unless=classifier.card) as loaded:
        card = loaded.result(60)[1].card
    assert card.weights_sha256 != classifier.card.weights_sha256


def test_a_load_at_its_end_gets_no_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    """It could not take it any more; each other thread would look for it for ever."""
    raised: list[object] = []
    monkeypatch.setattr(
        ctypes.pythonapi, "PyThreadState_SetAsyncExc", lambda *given: raised.append(given)
    )
    ended, go_on = threading.Event(), threading.Event()

    class Ending(warm._LoadThread):
        def run(self) -> None:
            super().run()
            ended.set()
            go_on.wait(30)

    thread = Ending(Future(), lambda: (None, None), beside=False)  # type: ignore[arg-type,return-value]
    thread.start()
    assert ended.wait(30)
    assert thread.is_alive()
    thread.interrupt()
    go_on.set()
    thread.join()
    assert raised == []
