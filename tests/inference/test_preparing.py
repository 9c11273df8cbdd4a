"""A tokeniser reads prepared texts, in a labeller, in a command and for the page alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.support.clocks import HandClock
from worker.core.decisions.own_function import OwnFunction
from worker.core.decisions.prepare import preparation
from worker.core.model import PreparesTexts, Step, no_step
from worker.core.records import ModelInput
from worker.errors import RecordRejected, TextSkipped
from worker.inference.preparing import PreparingTokeniser, preparation_of, prepared
from worker.runtime.forward import tokenise
from worker.settings import PrepareSettings


class Words:
    """A tokeniser with an id for each word, which fails on the text `bad`."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def tokenise(self, texts: Sequence[str], step: Step = no_step, /) -> list[ModelInput]:
        step()
        self.calls.append([*texts])
        if "bad" in texts:
            raise ValueError("bad")
        ids = tuple(tuple(range(len(text.split()))) for text in texts)
        return [ModelInput(ids, tuple(range(len(texts))), (False,) * len(texts))]


def tokeniser(
    function: Callable[[str], Any] | None = None, clock: HandClock | None = None, **options: Any
) -> PreparingTokeniser:
    own = OwnFunction("pkg:clean", "1", function) if function else None
    whole = preparation(PrepareSettings(**options), own)
    assert whole is not None
    return PreparingTokeniser(Words(), whole, clock)


def skipping(text: str) -> str | None:
    if text == "wrong":
        raise ValueError(text)
    return None if text == "skip" else text


def test_the_tokenizer_reads_prepared_texts() -> None:
    ours = tokeniser(preset="tweets")
    assert isinstance(ours, PreparesTexts)
    inputs, failed = tokenise(ours, ["@ann hi", "http://x"], lambda: None)
    assert ours.plain.calls == [["@user hi", "http"]]  # type: ignore[attr-defined]
    assert ([one.positions for one in inputs], failed) == ([(0, 1)], {})


def test_a_failed_and_a_skipped_text_leave_the_others_their_places() -> None:
    calls: list[str] = []

    def function(text: str) -> str | None:
        calls.append(text)
        return skipping(text)

    texts = ["one", "skip", "two words", "wrong", "bad"]
    inputs, failed = tokenise(tokeniser(function), texts, lambda: None)
    assert sorted(p for one in inputs for p in one.positions) == [0, 2]
    assert isinstance(failed[1].error, TextSkipped)
    assert isinstance(failed[3].error, RecordRejected)
    assert isinstance(failed[4].error, ValueError), "the tokenizer failed on this one"
    assert calls == texts, "the function is called once for each text, whatever fails after it"


def test_the_tokenizer_is_not_called_without_texts() -> None:
    ours = tokeniser(skipping)
    inputs, failed = tokenise(ours, ["skip", "skip"], lambda: None)
    assert (inputs, list(failed), ours.plain.calls) == ([], [0, 1], [])  # type: ignore[attr-defined]


def test_a_single_text_may_be_tokenised_directly() -> None:
    ours = tokeniser(skipping)
    assert ours.tokenise(["two words"])[0].ids == ((0, 1),)
    with pytest.raises(TextSkipped, match="skips this text"):
        ours.tokenise(["skip"])
    with pytest.raises(RecordRejected, match="raised ValueError"):
        ours.tokenise(["wrong"])


def test_each_text_is_a_step_and_its_time_is_counted() -> None:
    clock, steps, seconds = HandClock(), [], []

    def slow(text: str) -> str:
        clock.sleep(2.0)
        return text

    ours = tokeniser(slow, clock)
    ours.prepare(["a"])  # nobody counts
    ours.spent = seconds.append
    ours.prepare(["a", "b", "c"], lambda: steps.append(1))
    assert (len(steps), seconds) == (3, [6.0])


def test_without_a_preparation_the_tokeniser_stays() -> None:
    words = Words()
    assert prepared(words, None) is words
    assert prepared(words, preparation_of(PrepareSettings(special_tokens="tokens"))) is words
    assert isinstance(prepared(words, preparation_of(PrepareSettings(html=True))), PreparesTexts)
    assert not isinstance(words, PreparesTexts)


def test_the_function_is_imported() -> None:
    found = preparation_of(PrepareSettings(function="html:unescape"))
    assert found is not None
    assert found.apply("&lt;") == "<"
