"""Questions are answered between micro-batches, on the threads that own the model."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import replace

import pytest

from schemas.dead_letter import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.records import CARD, item
from tests.support.workers import ObedientModel
from worker.clock import SystemClock
from worker.core.decisions.windows import Extent, WindowPlan
from worker.core.model import Step, no_step
from worker.core.records import DeadLettered, Filtered, MicroBatch, ModelInput, Outcome
from worker.http.ask import AskQueue, Unanswerable
from worker.runtime.stage import Stage, StageControl, StageHooks
from worker.runtime.stall import StageProgress


def fail(_: list[str]) -> None:
    raise RuntimeError("the text, quoted")


def test_a_question_visits_the_tokenizer_and_then_the_model() -> None:
    ask_queue, model = AskQueue(HandClock()), ObedientModel()
    answer = ask_queue.ask("hello")
    ask_queue.infer()
    assert not model.predicted
    ask_queue.tokenise(model.aside)
    assert not answer.done()
    ask_queue.infer()
    result = answer.result(0)
    assert result.said["scores"] == [("POSITIVE", 0.75), ("NEGATIVE", 0.25)]
    ask_queue.tokenise(model.aside)
    ask_queue.infer()
    assert model.predicted == [["hello"]], "answered once"


def test_a_question_waits_until_there_is_a_model() -> None:
    ask_queue, model = AskQueue(HandClock()), ObedientModel()
    assert not ask_queue.ready
    answer = ask_queue.ask("hello")
    assert not answer.done()
    ask_queue.tokenise(model.aside)
    assert ask_queue.ready
    ask_queue.infer()
    assert answer.result(0)


def test_a_long_text_is_answered_from_all_of_its_windows() -> None:
    """They may need several passes."""

    class Windows(ObedientModel):
        def tokenise(self, some: Sequence[str], _: Step = no_step) -> list[ModelInput]:
            rows = tuple(tuple(map(ord, part)) for part in ("abc", "def", "gh"))
            return [ModelInput(rows, (0, 0, 0), (False,) * 3, (Extent(6, 6),) * 3)]

    ask_queue, plan = AskQueue(HandClock()), WindowPlan(1, 9, "mean")
    model = Windows(card=replace(CARD, windows=plan, forward_tokens=6))
    answer = ask_queue.ask("abcdefgh")
    ask_queue.tokenise(model.aside)
    ask_queue.infer()
    said = answer.result(0).said
    assert said["scores"] == [("POSITIVE", 0.75), ("NEGATIVE", 0.25)]
    assert (said["token_count"], said["windows"], said["total_tokens"]) == (6, 3, 6)
    assert model.predicted == [["abc", "def"], ["gh"]]


@pytest.mark.parametrize(
    "model",
    [ObedientModel(on_tokenise=fail), ObedientModel(on_predict=fail)],
    ids=["tokenise", "infer"],
)
def test_a_failing_text_does_not_affect_the_next_one(model: ObedientModel) -> None:
    ask_queue = AskQueue(HandClock())
    answer = ask_queue.ask("hello")
    ask_queue.tokenise(model.aside)
    ask_queue.infer()
    with pytest.raises(Unanswerable, match=r"^the model failed on this text: RuntimeError$"):
        answer.result(0)
    model.on_tokenise = model.on_predict = lambda _: None
    answer = ask_queue.ask("again")
    ask_queue.tokenise(model.aside)
    ask_queue.infer()
    assert answer.result(0)


@pytest.mark.parametrize("steps", [0, 1])
def test_a_cancelled_question_costs_no_forward_pass(steps: int) -> None:
    ask_queue, model = AskQueue(HandClock()), ObedientModel()
    answer = ask_queue.ask("hello")
    for _ in range(steps):
        ask_queue.tokenise(model.aside)
    answer.cancel()
    ask_queue.tokenise(model.aside)
    ask_queue.infer()
    assert not model.predicted
    with pytest.raises(CancelledError):
        answer.result(0)


def test_a_stage_checks_for_questions_before_each_item_and_while_idle() -> None:
    checked, done = threading.Event(), threading.Event()
    order: list[str] = []

    def between() -> None:
        order.append("between")
        checked.set()

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
    checked.clear()
    assert checked.wait(10), "with an empty inbox"
    control.cancelled.set()
    stage.join(10)


def test_a_question_is_answered_by_the_model_whose_tokenizer_read_it() -> None:
    """The model changes while the question is between the two threads."""
    ask_queue, old, new = AskQueue(HandClock()), ObedientModel(), ObedientModel()
    answer = ask_queue.ask("hello")
    ask_queue.tokenise(old.aside)
    ask_queue.tokenise(new.aside)
    ask_queue.infer()
    assert answer.result(0)
    assert (old.predicted, new.predicted) == ([["hello"]], [])


class Refusing:
    """A labeller that has this outcome for every text."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome

    def tokenise(self, _: MicroBatch, __: Step) -> Refusing:
        return self

    def infer(self, _: Step) -> list[Outcome]:
        return [self.outcome]


def test_a_text_that_is_refused_or_filtered_gets_the_reason() -> None:
    ask_queue = AskQueue(HandClock())
    too_long = DeadLettered(item(0).record, DeadLetterReason.TOO_MANY_TOKENS, "too many tokens")
    answer = ask_queue.ask("hello")
    ask_queue.tokenise(lambda: Refusing(too_long))
    ask_queue.infer()
    with pytest.raises(Unanswerable, match=r"^too many tokens$"):
        answer.result(0)
    answer = ask_queue.ask("hello")
    ask_queue.tokenise(lambda: Refusing(Filtered(item(0), "prepare.function")))
    ask_queue.infer()
    assert answer.result(0).said == {"filtered": "prepare.function"}


def test_an_error_that_no_text_causes_does_not_end_the_stage() -> None:
    """Also if the asker has given up meanwhile."""
    ask_queue = AskQueue(HandClock())

    def broken() -> Refusing:
        raise RuntimeError("the text, quoted")

    answer = ask_queue.ask("hello")
    ask_queue.tokenise(broken)
    with pytest.raises(Unanswerable, match=r"^the model failed on this text: RuntimeError$"):
        answer.result(0)
    answer = ask_queue.ask("hello")

    def given_up() -> Refusing:
        answer.cancel()
        raise RuntimeError

    ask_queue.tokenise(given_up)
    assert answer.cancelled()
