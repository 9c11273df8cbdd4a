"""The outcome of a text that can't be prepared, and of one that the own function skips."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from schemas import DeadLetterReason
from tests.runtime.test_labelling import Model, fail_on
from tests.support.clocks import HandClock
from tests.support.records import item
from worker.core.budget import ForwardBudget
from worker.core.cache import PredictionCache
from worker.core.decisions.own_function import OwnFunction
from worker.core.decisions.prepare import preparation
from worker.core.faults import CircuitBreaker
from worker.core.model import no_step
from worker.core.records import Classified, DeadLettered, Filtered, MicroBatch, Outcome
from worker.errors import CircuitOpen
from worker.inference.preparing import PreparingTokeniser
from worker.metrics import Metrics
from worker.runtime.labelling import Labeller
from worker.runtime.stall import StageProgress
from worker.settings import PrepareSettings


def cleaning(text: str) -> Any:
    if text.startswith("wrong"):
        raise ValueError(text)
    if text.startswith("leave"):
        raise SystemExit(text)
    return {"skip": None, "bytes": b"bytes", "blank": " "}.get(text, text.upper())


def labeller(
    function: Callable[[str], Any] = cleaning,
    *,
    skips: bool = True,
    in_a_row: int = 100,
    fault: Callable[[Sequence[str]], None] = lambda _: None,
) -> Labeller:
    model = Model(fault)
    whole = preparation(PrepareSettings(), OwnFunction("pkg:clean", "1", function))
    assert whole is not None
    model.card = replace(model.card, recipe=whole.recipe)
    return Labeller(
        PreparingTokeniser(model, whole),
        model,
        refuse_long=False,
        breaker=CircuitBreaker(in_a_row, ratio=1.0),
        budget=ForwardBudget(4096),
        metrics=Metrics(),
        cache=PredictionCache(1_000_000),
        skips=skips,
    )


def label(ours: Labeller, *texts: str) -> list[Outcome]:
    entries = tuple(item(n, text) for n, text in enumerate(texts))
    return ours.infer(ours.tokenise(MicroBatch(entries, "ready", 0.0, 0.0), no_step), no_step)


def test_each_text_has_an_outcome_of_its_own() -> None:
    good, skipped, again, wrong, left, blank = label(
        labeller(), "good", "skip", "skip", "wrong secret", "leave secret", "blank"
    )
    assert isinstance(good, Classified)
    assert good.item.text == "good", "the record keeps its text"
    assert isinstance(skipped, Filtered)
    assert (skipped.reason, skipped.model) == ("prepare.function", good.model)
    assert isinstance(again, Filtered)
    assert again.item.record.ref != skipped.item.record.ref
    assert isinstance(wrong, DeadLettered)
    assert wrong.reason is DeadLetterReason.PREPARE_FAILED
    assert "prepare.function pkg:clean raised ValueError in test_unread.py, line" in wrong.message
    assert "secret" not in wrong.message
    assert isinstance(left, DeadLettered)
    assert "raised SystemExit" in left.message
    assert wrong.stack_hash != left.stack_hash, "the hash is that of the function's own error"
    assert isinstance(blank, DeadLettered)
    assert blank.reason is DeadLetterReason.EMPTY_TEXT


def test_a_skip_without_a_topic_for_its_note_is_a_dead_letter() -> None:
    (dead,) = label(labeller(skips=False), "skip")
    assert isinstance(dead, DeadLettered)
    assert dead.reason is DeadLetterReason.PREPARE_FAILED
    assert "output.filtered_topic is not set" in dead.message


def test_a_function_that_fails_on_every_text_stops_the_worker() -> None:
    ours = labeller(in_a_row=3)
    label(ours, "skip", "wrong 1", "wrong 2")
    with pytest.raises(CircuitOpen):
        label(ours, "wrong 3")


def test_skips_show_that_the_function_works_and_nothing_of_the_model() -> None:
    """They neither count among failures in a row, nor hide a model that fails on all others."""
    ours = labeller(in_a_row=3)
    label(ours, *(text for n in range(4) for text in (f"wrong {n}", "skip")))
    ours = labeller(in_a_row=3, fault=fail_on("predict BAD"))
    with pytest.raises(CircuitOpen):
        label(ours, "bad", "skip", "bad", "skip", "bad")
    label(labeller(in_a_row=3), "wrong 1", "wrong 2", "good", "wrong 3", "wrong 4")


def test_a_text_of_the_page_may_be_skipped() -> None:
    (skipped,) = label(labeller(skips=False).aside(), "skip")
    assert isinstance(skipped, Filtered)


def test_a_function_that_hangs_is_a_stall_that_names_it() -> None:
    hangs, entered = threading.Event(), threading.Event()

    def function(text: str) -> str:
        entered.set()
        hangs.wait(10)
        return text

    thread = threading.Thread(target=label, args=(labeller(function), "text"))
    thread.start()
    progress = StageProgress("tokenise", HandClock().monotonic())
    progress.entered(1)
    progress.thread = thread.ident
    assert entered.wait(10)
    described = progress.describe()
    hangs.set()
    thread.join()
    assert described == (
        "the tokenise stage has held 1 records without a step, in prepare.function pkg:clean,"
    )
    assert progress.describe() == "the tokenise stage has held 1 records without a step"
