"""Texts that break the model, and models that break on texts: through the whole worker."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from schemas import DeadLetter
from tests.conftest import Broker, Topics
from tests.support.workers import (
    ObedientModel,
    audit,
    count,
    produce,
    read,
    running,
    texts,
    wait_until,
)
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.state import State
from worker.errors import CircuitOpen, OutOfMemory

pytestmark = pytest.mark.integration

UNREADABLE = (b"k", b"\xff")


def letters(broker: Broker, topics: Topics) -> list[DeadLetter]:
    return [
        DeadLetter.model_validate_json(dict(record.headers)[DEAD_LETTER_HEADER])
        for record in read(broker, topics.dead, topics.partitions)
    ]


def fail_on(*numbers: int) -> Callable[[list[str]], None]:
    poison = {f"post number {n}" for n in numbers}

    def fail(given: list[str]) -> None:
        if poison & set(given):
            raise ValueError(f"can't bear it: {given}")

    return fail


def holds(broker: Broker, topics: Topics, consumed: int) -> None:
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"]) == (consumed, 0)


def test_a_poison_text_becomes_a_dead_letter_and_its_batch_is_published(
    broker: Broker, topics: Topics
) -> None:
    """FIELD complaint 9: no retry limit, no dead letters. A text is tried alone twice, not more."""
    produce(broker, topics.input, texts(50))
    model = ObedientModel(fail_on(7))
    with running(broker, topics, model) as worker:
        wait_until(lambda: count(broker, topics) == 50, what="all have an outcome")
        wait_until(
            lambda: worker.value("streamlabel_records_published_total") == 49, what="49 counted"
        )
    (dead,) = read(broker, topics.dead, 3)
    letter = DeadLetter.model_validate_json(dict(dead.headers)[DEAD_LETTER_HEADER])
    assert (letter.reason.value, letter.attempt, letter.message) == (
        "model_failed",
        2,
        "ValueError",
    )
    assert letter.stack_hash
    assert json.loads(dead.value)["id"] == 7
    assert model.predicted.count(["post number 7"]) == 2
    holds(broker, topics, 50)


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_poison_text_holds_up_neither_its_partition_nor_others(
    broker: Broker, make_topics: Callable[..., Topics], topics: Topics
) -> None:
    """FIELD complaint 11: head-of-line blocking. The poison is first in every partition."""
    several = make_topics(partitions=3)
    for some in (topics, several):
        produce(broker, some.input, texts(90))
        with running(broker, some, ObedientModel(fail_on(0, 1, 2, 3, 88, 89)), **SMALL):
            wait_until(lambda one=some: count(broker, one) == 90, what="all have an outcome")
        assert sorted(letter.reason.value for letter in letters(broker, some)) == (
            ["model_failed"] * 6
        )
        holds(broker, some, 90)


def test_a_repeated_text_is_run_once_unless_it_fails(broker: Broker, topics: Topics) -> None:
    """Each record has an outcome; a poison text is tried again in each micro-batch."""
    model = ObedientModel(fail_on(7))
    with running(broker, topics, model) as worker:
        produce(broker, topics.input, texts(10) * 2)
        wait_until(lambda: count(broker, topics) == 20, what="all have an outcome")
        model.predicted.clear()
        produce(broker, topics.input, texts(10) * 4)
        wait_until(lambda: count(broker, topics) == 60, what="all have an outcome")
        assert {text for given in model.predicted for text in given} == {"post number 7"}
        wait_until(lambda: worker.published == 54, what="54 counted")
    assert [letter.reason.value for letter in letters(broker, topics)] == ["model_failed"] * 6
    holds(broker, topics, 60)


def test_a_text_that_breaks_the_tokenizer_fails_alone(broker: Broker, topics: Topics) -> None:
    produce(broker, topics.input, texts(20))
    with running(broker, topics, ObedientModel(on_tokenise=fail_on(3))):
        wait_until(lambda: count(broker, topics) == 20, what="all have an outcome")
    assert [letter.reason.value for letter in letters(broker, topics)] == ["tokeniser_failed"]


# -- the circuit breaker -----------------------------------------------------------------------


SMALL: dict[str, Any] = {"batch__max_records": 8}
EVERY = range(10_000)


@pytest.mark.allow_errors
@pytest.mark.parametrize("room", ["on_predict", "on_tokenise"])
def test_a_model_that_fails_on_everything_stops_the_worker(
    broker: Broker, topics: Topics, room: str
) -> None:
    """The limit is not swallowed on its way through the worker, and the topic is not emptied.

    FIELD complaint 6: committed though it failed. That batch is processed again.
    """
    produce(broker, topics.input, texts(200))
    model = ObedientModel(**{room: fail_on(*EVERY)})
    with running(broker, topics, model, max_consecutive_dead_letters=20, **SMALL) as worker:
        worker.join(60)
    assert isinstance(worker.error, CircuitOpen)
    assert "max_consecutive_dead_letters" in str(worker.error)
    assert worker.progress.state is State.FAILED
    assert len(letters(broker, topics)) < 20
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 200, what="a mended worker labels the rest")
    assert audit(broker, topics)["duplicated"] == 0


@pytest.mark.allow_errors
@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_model_that_fails_on_every_third_text_stops_the_worker(
    broker: Broker, topics: Topics
) -> None:
    """Failures never follow each other: only the ratio detects them."""
    produce(broker, topics.input, texts(600))
    model = ObedientModel(fail_on(*range(0, 600, 3)))
    with running(broker, topics, model, max_dead_letter_ratio=0.1, **SMALL) as worker:
        worker.join(60)
    assert isinstance(worker.error, CircuitOpen)
    assert "101 of the last 301 records" in str(worker.error)
    assert "max_dead_letter_ratio" in str(worker.error)
    assert len(letters(broker, topics)) <= 100
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 600, what="a mended worker labels the rest")
    assert audit(broker, topics)["duplicated"] == 0


def test_unreadable_input_does_not_open_the_circuit(broker: Broker, topics: Topics) -> None:
    """Unreadable input is not the model's fault: all of it becomes dead letters."""
    produce(broker, topics.input, [UNREADABLE] * 60 + texts(10) + [UNREADABLE] * 60)
    strict = {"max_consecutive_dead_letters": 1, "max_dead_letter_ratio": 0.0}
    with running(broker, topics, max_unreadable_ratio=1.0, **strict, **SMALL):
        wait_until(lambda: count(broker, topics) == 130, what="all have an outcome")
    assert {letter.reason.value for letter in letters(broker, topics)} == {"not_utf8"}
    holds(broker, topics, 130)


# -- out of memory -----------------------------------------------------------------------------


class NarrowMemory(ObedientModel):
    """Fits so many tokens in a pass, padding included, and records the passes that were tried."""

    def __init__(self, room: int) -> None:
        super().__init__(self._fit)
        self.room = room
        self.tried: list[int] = []

    def _fit(self, given: list[str]) -> None:
        self.tried.append(max(map(len, given)) * len(given))
        if self.tried[-1] > self.room:
            raise OutOfMemory(f"{self.tried[-1]} tokens do not fit")


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_passes_shrink_when_memory_runs_out_and_no_text_is_lost(
    broker: Broker, topics: Topics
) -> None:
    """The limit is learnt once: a later batch tries no size that did not fit before."""
    produce(broker, topics.input, texts(400))
    model = NarrowMemory(500)
    with running(broker, topics, model, batch__max_records=100) as worker:
        wait_until(lambda: count(broker, topics) == 400, what="all are labelled")
        assert worker.value("streamlabel_forward_tokens") <= 500
    too_large = [n for n, tokens in enumerate(model.tried) if tokens > 500]
    assert 0 < len(too_large) <= 3
    assert max(too_large) < 6
    assert not letters(broker, topics)
    holds(broker, topics, 400)


def test_a_text_that_does_not_fit_alone_is_a_dead_letter_and_the_others_are_labelled(
    broker: Broker, topics: Topics
) -> None:
    long = json.dumps({"id": "long", "text": "long " * 20}).encode()
    produce(broker, topics.input, [*texts(30), (b"k", long), *texts(30, start=30)])
    model = NarrowMemory(60)
    with running(broker, topics, model):
        wait_until(lambda: count(broker, topics) == 61, what="all have an outcome")
    (letter,) = letters(broker, topics)
    assert (letter.reason.value, letter.attempt) == ("model_failed", 2)
    assert letter.message == "OutOfMemory: 100 tokens do not fit"
    assert model.predicted.count(["long " * 20]) == 2
    holds(broker, topics, 61)
