"""The box: asked between micro-batches, on the threads that own the model; never a record's harm."""

from __future__ import annotations

import threading
from concurrent.futures import CancelledError

import pytest

from tests.support.clocks import HandClock
from tests.support.workers import ObedientModel
from worker.clock import SystemClock
from worker.http.ask import AskQueue, Unanswerable
from worker.runtime.stage import Stage, StageControl, StageHooks
from worker.runtime.stall import StageProgress


def fail(_: list[str]) -> None:
    raise RuntimeError("the text, quoted")


def box_of(model: ObedientModel) -> AskQueue:
    box = AskQueue(HandClock())
    box.open(model, model)
    return box


def test_a_question_visits_the_tokenizer_and_then_the_model() -> None:
    box = box_of(model := ObedientModel())
    asked = box.ask("hello")
    box.infer()
    assert not model.predicted
    box.tokenise()
    assert not asked.done()
    box.infer()
    answer = asked.result(0)
    assert answer.prediction.probabilities == (0.25, 0.75)
    assert answer.labels == model.card.labels
    box.tokenise()
    box.infer()
    assert model.predicted == [["hello"]], "asked once"


def test_without_a_model_a_question_waits() -> None:
    box = AskQueue(HandClock())
    assert not box.ready
    asked = box.ask("hello")
    box.tokenise()
    box.infer()
    assert not asked.done()


@pytest.mark.parametrize(
    "model", [ObedientModel(on_tokenise=fail), ObedientModel(on_predict=fail)], ids=["cut", "run"]
)
def test_a_text_on_which_the_model_fails_fails_alone(model: ObedientModel) -> None:
    box = box_of(model)
    asked = box.ask("hello")
    box.tokenise()
    box.infer()
    with pytest.raises(Unanswerable, match=r"^the model fails on this text: RuntimeError$"):
        asked.result(0)
    model.on_tokenise = model.on_predict = lambda _: None
    asked = box.ask("again")
    box.tokenise()
    box.infer()
    assert asked.result(0)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_question_that_nobody_waits_for_costs_no_pass(steps: int) -> None:
    box = box_of(model := ObedientModel())
    asked = box.ask("hello")
    for _ in range(steps):
        box.tokenise()
    asked.cancel()
    box.tokenise()
    box.infer()
    assert not model.predicted
    with pytest.raises(CancelledError):
        asked.result(0)


def test_a_stage_looks_at_it_before_each_item_and_while_it_has_none() -> None:
    asked, done = threading.Event(), threading.Event()
    order: list[str] = []

    def between() -> None:
        order.append("between")
        asked.set()

    def work(item: str) -> None:
        order.append(item)
        if item == "b":
            done.set()

    def crashed(_: str, error: BaseException) -> None:
        raise AssertionError from error

    control = StageControl(crashed, SystemClock())
    stage: Stage[str, None] = Stage(
        work, StageProgress("infer", 0.0), control, StageHooks(between=between), inbox_size=2
    )
    stage.offer("a")
    stage.offer("b")
    stage.start()
    assert done.wait(10)
    assert order[:4] == ["between", "a", "between", "b"]
    asked.clear()
    assert asked.wait(10), "with an empty inbox"
    control.cancelled.set()
    stage.join(10)
