"""ModelChanges: one change at a time, and the model in use stays if it fails."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.panels import RuleModel, panel_settings, rule_card, set_members
from tests.support.records import CARD
from tests.support.workers import ObedientModel
from worker.core.model_set import ModelSet
from worker.core.records import ModelCard
from worker.errors import ChangeUnderway, ModelUnavailable, ModelUnchanged, SettingsError
from worker.metrics import Metrics
from worker.runtime import model_changes
from worker.runtime.model_changes import ModelChanges
from worker.settings import Settings, load

NEW = replace(CARD, name="new", weights_sha256="cd" * 32)


def named(name: str, **more: object) -> Settings:
    members = {f"model.{key}": value for key, value in more.items()}
    return load({"model.name": name} | members, environ={}).settings


class Desk:
    """Changes of a worker whose loads the test ends."""

    def __init__(self) -> None:
        self.clock, self.metrics = HandClock(), Metrics()
        self.loaded = Future[Any]()
        self.loads: list[tuple[str, ModelCard | ModelSet | None]] = []
        self.open = 0
        self.taken: list[str] = []
        self.misfit: Exception | None = None
        self.changes = ModelChanges(named("tiny"), self._load, self.metrics, self.clock)
        self.changes.connect(CARD, self._take_over)

    @contextmanager
    def _load(
        self,
        settings: Settings,
        _: Metrics,
        *,
        replaces: bool = False,
        unless: ModelCard | ModelSet | None = None,
    ) -> Iterator[Future[Any]]:
        assert replaces
        self.loads.append((settings.model.name, unless))
        self.loaded, self.open = Future[Any](), self.open + 1
        try:
            yield self.loaded
        finally:
            self.open -= 1

    def _take_over(self, settings: Settings, tokeniser: Any, classifier: Any) -> None:
        if self.misfit:
            raise self.misfit
        self.taken.append(classifier.card.name)

    def end(self, result: Any) -> dict[str, Any]:
        """End the load, and return the change as it is shown."""
        self.changes.step()
        if isinstance(result, BaseException):
            self.loaded.set_exception(result)
        else:
            self.loaded.set_result((result, result))
        self.changes.step()
        change: dict[str, Any] = self.changes.state()["change"]
        return change

    def counted(self, outcome: str) -> float | None:
        name = "streamlabel_model_changes_total"
        return self.metrics.registry.get_sample_value(name, {"outcome": outcome})


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_model_takes_over_once_it_is_loaded(desk: Desk) -> None:
    begun = desk.changes.change(named("new"), "SIGHUP")
    assert (begun.outcome, begun.name) == ("loading", "new")
    assert not desk.loads, "the poll thread begins the load"
    desk.changes.step()
    desk.changes.step()
    assert (desk.loads, desk.taken) == ([("new", None)], [])
    desk.clock.sleep(5)
    with capture_logs() as logs:
        change = desk.end(ObedientModel(card=NEW))
    assert (desk.taken, desk.open) == (["new"], 0)
    assert (change["outcome"], change["reason"]) == ("changed", "")
    assert change["ended_ms"] - change["began_ms"] == 5000
    shown = desk.changes.state()["model"]
    assert (shown["name"], shown["weights_sha256"]) == ("new", NEW.weights_sha256)
    assert desk.changes.settings.model.name == "new"
    assert desk.counted("changed") == 1
    (line,) = logs
    assert (line["trigger"], line["model"], line["log_level"]) == ("SIGHUP", "new", "info")


@pytest.mark.parametrize(
    ("error", "outcome", "level"),
    [
        (ModelUnavailable("it can't be loaded"), "failed", "error"),
        (SettingsError("it needs 9 MiB, the limit is 8 MiB"), "refused", "error"),
        (ModelUnchanged("in use already"), "unchanged", "info"),
        (ZeroDivisionError("odd"), "failed", "error"),
        (SystemExit("a library ends the program"), "failed", "error"),
    ],
)
def test_a_model_that_is_not_loaded_leaves_the_old_one(
    desk: Desk, error: BaseException, outcome: str, level: str
) -> None:
    desk.changes.change(named("new"), "POST /model")
    with capture_logs() as logs:
        change = desk.end(error)
    assert (change["outcome"], str(error) in change["reason"]) == (outcome, True)
    assert (desk.taken, desk.open, desk.counted(outcome)) == ([], 0, 1)
    assert desk.changes.state()["model"]["name"] == "tiny"
    (line,) = logs
    assert (line["log_level"], line["model"]) == (level, "tiny")
    assert str(error) in line["reason"]
    desk.changes.change(named("another"), "SIGHUP")
    assert desk.end(ObedientModel(card=NEW))["outcome"] == "changed"


def test_a_model_that_does_not_fit_leaves_the_old_one(desk: Desk) -> None:
    desk.misfit = SettingsError("no result would fit its topic")
    desk.changes.change(named("new"), "SIGHUP")
    change = desk.end(ObedientModel(card=NEW))
    assert (change["outcome"], change["reason"]) == ("refused", "no result would fit its topic")
    assert desk.changes.settings.model.name == "tiny"
    assert desk.changes.state()["model"]["name"] == "tiny"


def test_the_decision_changes_with_the_model(desk: Desk) -> None:
    wanted = load({"model.name": "tiny", "decision.digits": 2}, environ={}).settings
    desk.changes.change(wanted, "SIGHUP")
    desk.end(ObedientModel(card=NEW))
    assert desk.changes.settings.decision.digits == 2


def test_one_change_at_a_time(desk: Desk) -> None:
    desk.changes.change(named("new"), "SIGHUP")
    for _ in range(2):
        with pytest.raises(ChangeUnderway, match="a change to new, requested by SIGHUP"):
            desk.changes.change(named("another"), "POST /model")
        desk.changes.step()
    desk.changes.refuse("SIGHUP", "the file can't be read")
    assert desk.changes.state()["change"]["name"] == "new", "it is still under way"
    assert desk.counted("refused") == 1
    desk.end(ObedientModel(card=NEW))
    assert desk.loads == [("new", None)]
    assert desk.changes.change(named("another"), "POST /model").outcome == "loading"


def test_the_same_settings_again_load_only_another_file(desk: Desk) -> None:
    """The load compares labels and weights with those in use."""
    desk.changes.change(named("tiny"), "SIGHUP")
    desk.end(ModelUnchanged("in use already"))
    desk.changes.change(named("tiny", dtype="float32"), "SIGHUP")
    desk.end(ObedientModel(card=NEW))
    assert desk.loads == [("tiny", CARD), ("tiny", None)]


def test_to_watch_the_file_from_now_on_loads_nothing(desk: Desk) -> None:
    desk.changes.change(named("tiny", reload_on_change=True), "SIGHUP")
    desk.end(ModelUnchanged("in use already"))
    assert desk.loads == [("tiny", CARD)]
    assert desk.changes.settings.model.reload_on_change


def test_an_unexpected_error_while_it_takes_over_is_not_hidden(desk: Desk) -> None:
    """The worker may have one half of each model then: it has to stop."""
    desk.misfit = ZeroDivisionError("odd")
    desk.changes.change(named("new"), "SIGHUP")
    with pytest.raises(ZeroDivisionError):
        desk.end(ObedientModel(card=NEW))


def test_a_loaded_model_waits_for_a_permit(desk: Desk) -> None:
    """A pool's parent gives it. A load that failed needs none."""
    allowed = threading.Event()
    desk.changes.permit = allowed.is_set
    desk.changes.change(named("new"), "SIGHUP")
    assert desk.end(ObedientModel(card=NEW))["outcome"] == "loading"
    assert not desk.taken
    allowed.set()
    desk.changes.step()
    assert desk.taken == ["new"]
    allowed.clear()
    desk.changes.change(named("another"), "SIGHUP")
    assert desk.end(ModelUnavailable("no"))["outcome"] == "failed"


def test_a_request_waits_until_the_worker_is_complete() -> None:
    desk = Desk()
    changes = ModelChanges(named("tiny"), desk._load, desk.metrics, desk.clock)
    assert changes.state() == {"model": None, "change": None}
    changes.change(named("new"), "SIGHUP")
    changes.step()
    assert not desk.loads
    changes.connect(CARD, desk._take_over)
    changes.step()
    assert desk.loads == [("new", None)]


def test_a_stop_abandons_the_load(desk: Desk) -> None:
    desk.changes.change(named("new"), "SIGHUP")
    desk.changes.step()
    assert desk.open == 1
    desk.changes.close()
    assert desk.open == 0


def test_a_model_that_was_not_taken_is_free_at_once(desk: Desk) -> None:
    model = ObedientModel(card=NEW)
    freed = weakref.ref(model)
    desk.misfit = SettingsError("it does not fit")
    desk.changes.change(named("new"), "SIGHUP")
    desk.end(model)
    desk.loaded, desk.misfit = Future(), None  # an error refers to the frames that it passed
    del model
    assert freed() is None


def test_the_memory_of_the_old_model_is_returned_after_its_last_batches(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    returned: list[float] = []
    monkeypatch.setattr(
        model_changes, "return_free_memory", lambda: returned.append(desk.clock.now)
    )
    desk.changes.change(named("new"), "SIGHUP")
    desk.end(ObedientModel(card=NEW))
    desk.changes.step()
    assert returned == []
    desk.clock.sleep(15)
    for _ in range(2):
        desk.changes.step()
    assert returned == [desk.clock.now]


TWO = '{tone = {name = "x"}, topic = {name = "y"}}'


def several(desk: Desk, models: str = TWO) -> ModelSet:
    """Let a set take over, and return it."""
    settings = panel_settings(models)
    built = {name: RuleModel(rule_card(name, "A", "B"), lambda _: "A") for name in settings.models}
    made = ModelSet(set_members(settings, **built))
    desk.changes.connect(CARD, desk._take_over, lambda: made)
    desk.changes.change(settings, "SIGHUP")
    desk.end(made)
    return made


def test_several_models_take_over_together_and_are_shown_by_their_names(desk: Desk) -> None:
    made = several(desk)
    assert desk.loads == [("distilbert-base-uncased-finetuned-sst-2-english", made)]
    state = desk.changes.state()
    assert state["change"]["name"] == "tone+topic"
    assert state["model"]["name"] == "tone+topic"
    assert set(state["model"]["members"]) == {"tone", "topic"}
    assert state["model"]["members"]["tone"]["weights_sha256"] == "74" * 32
    assert desk.changes.settings.models.keys() == {"tone", "topic"}


def test_a_change_from_several_models_to_one_keeps_none(desk: Desk) -> None:
    several(desk)
    desk.changes.change(named("tiny"), "SIGHUP")
    desk.changes.step()
    assert desk.loads[-1] == ("tiny", None)


def test_a_change_from_one_model_to_several_keeps_none(desk: Desk) -> None:
    desk.changes.change(panel_settings(TWO), "SIGHUP")
    desk.changes.step()
    assert desk.loads[-1][1] is None
