"""Texts to ids: every text once, and cut exactly, for any text."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, ByT5Tokenizer, CanineTokenizer

from tests.support.models import Architecture, bert_tokenizer
from worker.core.decisions.windows import Extent, WindowPlan
from worker.core.records import ModelInput
from worker.errors import ModelUnavailable, SettingsError
from worker.inference.tokeniser import TransformersTokeniser, well_formed

CLS, SEP = 101, 102
MAX_TOKENS = 16
ODD_TEXTS = {
    "empty": "",
    "lone surrogate": "a \ud800 b",
    "NUL": "a\0b",
    "control characters only": "\x00\x01\x02",
    "zero width": "a\u200b\u200d\ufeffb",
    "right to left": "שלום עולם \u202eabc",
    "combining": "e" + "\u0301" * 500,
    "special tokens spelt out": "[CLS] [SEP] [PAD] <s> </s> <pad> <|endoftext|>",
    "a bracket and a brace": "[bold]{x}%s",
    "white space": " \n\t ",
}


@pytest.fixture(scope="module")
def bert() -> Any:
    return AutoTokenizer.from_pretrained(bert_tokenizer())


@pytest.fixture(params=["distilbert", "roberta", "gpt2"])
def any_tokenizer(
    request: pytest.FixtureRequest, checkpoint: Callable[[Architecture], Path]
) -> Any:
    return AutoTokenizer.from_pretrained(checkpoint(request.param))


def tokeniser(tokenizer: Any, max_tokens: int = MAX_TOKENS) -> TransformersTokeniser:
    return TransformersTokeniser(tokenizer, max_tokens=max_tokens)


def by_position(inputs: Sequence[ModelInput]) -> dict[int, tuple[tuple[int, ...], bool]]:
    return {
        position: (ids, cut)
        for i in inputs
        for position, ids, cut in zip(i.positions, i.ids, i.truncated, strict=True)
    }


def test_ids_and_positions_are_sorted_by_length(bert: Any) -> None:
    (only,) = tokeniser(bert).tokenise(["Hi", "I hate this so much!", "So much"])
    assert only.positions == (1, 2, 0)
    assert only.ids[0] == (CLS, 1045, 5223, 2023, 2061, 2172, 999, SEP)
    assert only.truncated == (False, False, False)
    assert (only.tokens, only.padded_tokens) == (8 + 4 + 3, 24)


def test_without_texts_there_are_no_passes(bert: Any) -> None:
    assert tokeniser(bert).tokenise([]) == []


@pytest.mark.parametrize("words", [MAX_TOKENS - 3, MAX_TOKENS - 2, MAX_TOKENS - 1, 5_000])
def test_a_text_is_flagged_only_if_it_was_cut(bert: Any, words: int) -> None:
    """Each word is one token, and there are two special tokens."""
    ((ids, cut),) = by_position(tokeniser(bert).tokenise(["word " * words])).values()
    assert cut == (words > MAX_TOKENS - 2)
    assert len(ids) == min(words + 2, MAX_TOKENS)
    assert (ids[0], ids[-1]) == (CLS, SEP)


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(
        alphabet=st.sampled_from("ab1 \n\t\x1c\x00.,é日😀\u0301\u200b-'"),
        min_size=0,
        max_size=1_500,
    )
)
@example(
    "qz\x1c" * 500
)  # one word of 1,000 letters, with characters that are white space in Python
def test_the_head_of_a_long_text_gives_the_tokens_of_the_whole_text(bert: Any, text: str) -> None:
    """The result equals the truncation of transformers."""
    ((ids, cut),) = by_position(tokeniser(bert).tokenise([text])).values()
    assert list(ids) == bert(text, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    assert cut == (len(bert(text)["input_ids"]) > MAX_TOKENS)


@pytest.mark.parametrize("repeats", [1, 3, 60])
def test_the_head_is_enough_for_other_tokenizers(any_tokenizer: Any, repeats: int) -> None:
    text = "Ünïcode words,  gaps and\tsupercalifragilistic 😀 ends.\n" * repeats
    ((ids, _),) = by_position(tokeniser(any_tokenizer).tokenise([text])).values()
    assert list(ids) == any_tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"]


def test_a_tokenizer_may_keep_the_end_of_a_text(bert: Any) -> None:
    tokenizer = AutoTokenizer.from_pretrained(bert_tokenizer(), truncation_side="left")
    text = "start " * 1_000 + "the very end"
    ((ids, cut),) = by_position(tokeniser(tokenizer).tokenise([text])).values()
    assert list(ids) == tokenizer(text, truncation=True, max_length=MAX_TOKENS)["input_ids"]
    assert ids[-2] == bert.convert_tokens_to_ids("end")
    assert cut


def test_the_tokenizers_own_padding_and_truncation_are_ignored(bert: Any) -> None:
    """The file pads and cuts to 128 tokens, and a call's state must not affect the next call."""
    backend = json.loads((bert_tokenizer() / "tokenizer.json").read_text())
    assert backend["padding"]
    assert backend["truncation"]
    ours = tokeniser(bert, max_tokens=512)
    before = ours.tokenise(["word " * 300, "Hi"])
    bert(["x"], padding="max_length", truncation=True, max_length=5)
    assert ours.tokenise(["word " * 300, "Hi"]) == before
    assert [len(ids) for ids in before[0].ids] == [302, 3]


@settings(
    max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(st.text(st.characters(codec="utf-8"), max_size=80), min_size=1, max_size=5))
@example(texts=[text for text in ODD_TEXTS.values() if well_formed(text) == text])
def test_ids_are_those_of_transformers(any_tokenizer: Any, texts: list[str]) -> None:
    """The Rust tokenizer is called without the Python of transformers, which changes no id."""
    (model_input,) = tokeniser(any_tokenizer, 4096).tokenise(texts)
    whole = any_tokenizer(texts)["input_ids"]
    placeholder = (any_tokenizer.bos_token_id,)
    assert [model_input.ids[model_input.positions.index(n)] for n in range(len(texts))] == [
        tuple(ids) or placeholder for ids in whole
    ]


def test_a_tokenizer_that_does_more_in_python_is_called_itself(bert: Any) -> None:
    """Subclasses may change the ids of the Rust tokenizer, as Code Llama's does."""

    class Reversing(type(bert)):  # type: ignore[misc]
        def _encode_plus(self, *args: Any, **options: Any) -> Any:
            encoded = super()._encode_plus(*args, **options)
            if not options.get("add_special_tokens"):
                encoded["input_ids"] = [ids[::-1] for ids in encoded["input_ids"]]
            return encoded

    reversing = Reversing.from_pretrained(bert_tokenizer())
    (plain,) = tokeniser(bert).tokenise(["one two"])
    (backwards,) = tokeniser(reversing).tokenise(["one two"])
    assert backwards.ids[0][1:-1] == plain.ids[0][1:-1][::-1]


@pytest.mark.parametrize("name", ODD_TEXTS)
def test_unusual_texts_are_tokenised(any_tokenizer: Any, name: str) -> None:
    rows = by_position(tokeniser(any_tokenizer).tokenise([ODD_TEXTS[name], "other"]))
    assert set(rows) == {0, 1}
    assert all(1 <= len(ids) <= MAX_TOKENS for ids, _ in rows.values())
    assert rows[1][0] == by_position(tokeniser(any_tokenizer).tokenise(["other"]))[0][0]


def test_a_lone_surrogate_becomes_the_replacement_character(any_tokenizer: Any) -> None:
    ours = tokeniser(any_tokenizer)
    assert ours.tokenise(["a\ud800b \udfff"]) == ours.tokenise(["a\ufffdb \ufffd"])
    assert well_formed("whole 😀") == "whole 😀"


@pytest.mark.parametrize(
    "text",
    ["😀" * 100_000, "😀 " * 100_000, "hello, " * 150_000, " " * 1_000_000, "\x01 " * 500_000],
    ids=["emoji", "emoji apart", "words", "spaces", "controls"],
)
def test_a_megabyte_is_tokenised_quickly(any_tokenizer: Any, text: str) -> None:
    ours = tokeniser(any_tokenizer)
    start = time.perf_counter()
    (only,) = ours.tokenise([text])
    assert time.perf_counter() - start < 10  # quadratic time would take minutes
    assert len(only.ids[0]) <= MAX_TOKENS


def test_only_the_head_of_a_long_text_is_tokenised(
    bert: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = 0

    class Counting:
        def __getattr__(self, name: str) -> Any:
            return getattr(bert, name)

        def __call__(self, texts: list[str], **options: Any) -> Any:
            nonlocal seen
            seen += sum(map(len, texts))
            return bert(texts, **options)

    (only,) = tokeniser(Counting(), max_tokens=64).tokenise(["hello, " * 150_000])
    assert only.truncated == (True,)
    assert seen < 10_000


@settings(max_examples=100, deadline=None)
@given(words=st.lists(st.integers(min_value=0, max_value=40), max_size=60))
def test_every_text_once_longest_first(bert: Any, words: list[int]) -> None:
    inputs = tokeniser(bert).tokenise(["word " * n for n in words])
    assert sorted(p for i in inputs for p in i.positions) == list(range(len(words)))
    assert all(
        len(ids) == min(words[p] + 2, MAX_TOKENS) for p, (ids, _) in by_position(inputs).items()
    )
    lengths = [len(ids) for i in inputs for ids in i.ids]
    assert lengths == sorted(lengths, reverse=True)


def test_max_tokens_without_room_for_a_text_are_rejected(bert: Any) -> None:
    with pytest.raises(SettingsError, match=r"model\.max_tokens \(2\)"):
        tokeniser(bert, max_tokens=2)


@pytest.mark.parametrize("slow", [CanineTokenizer, ByT5Tokenizer])
def test_slow_tokenizers_are_supported(slow: Any) -> None:
    tokenizer = slow()
    assert not tokenizer.is_fast
    rows = by_position(tokeniser(tokenizer).tokenise(["abc", "d" * 100]))
    assert list(rows[0][0]) == tokenizer("abc")["input_ids"]
    assert list(rows[1][0]) == tokenizer("d" * 100, truncation=True, max_length=16)["input_ids"]
    assert (rows[0][1], rows[1][1]) == (False, True)


def test_a_tokenizer_that_changes_the_text_is_rejected(bert: Any) -> None:
    class Changing:
        def __call__(self, texts: list[str], **options: Any) -> dict[str, list[list[int]]]:
            return {"input_ids": [[1, 2] if options["add_special_tokens"] else [3]]}

    with pytest.raises(ModelUnavailable, match="changes a text"):
        tokeniser(Changing())


def windows_of(model_input: ModelInput, position: int) -> list[list[int]]:
    pairs = zip(model_input.positions, model_input.ids, strict=True)
    return [list(ids) for at, ids in pairs if at == position]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    text=st.text(st.sampled_from("ab1 .,é日😀-'"), max_size=600),
    stride=st.integers(0, 13),
    side=st.sampled_from(["left", "right"]),
)
def test_windows_are_those_of_transformers(
    any_tokenizer: Any, text: str, stride: int, side: str
) -> None:
    any_tokenizer.truncation_side = side
    plan = WindowPlan(stride, max_windows=10_000, combine="mean")
    (model_input,) = TransformersTokeniser(
        any_tokenizer, max_tokens=MAX_TOKENS, windows=plan
    ).tokenise(["Hi", text, "Hi"])
    theirs = any_tokenizer(
        text, truncation=True, max_length=MAX_TOKENS, stride=stride, return_overflowing_tokens=True
    )["input_ids"]
    placeholder = [any_tokenizer.bos_token_id]
    assert windows_of(model_input, 1) == [ids or placeholder for ids in theirs]
    total = len(any_tokenizer(text, truncation=False)["input_ids"]) or 1
    assert {
        e for e, at in zip(model_input.extents, model_input.positions, strict=True) if at == 1
    } == {Extent(total, total)}
    assert not any(model_input.truncated)
    lengths = [len(ids) for ids in model_input.ids]
    assert lengths == sorted(lengths, reverse=True)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_text_of_more_windows_than_allowed_is_flagged(side: str) -> None:
    """Each word is one token: two windows of 14 with 4 in both read 24 of 100."""
    tokenizer = AutoTokenizer.from_pretrained(bert_tokenizer(), truncation_side=side)
    ours = TransformersTokeniser(tokenizer, max_tokens=MAX_TOKENS, windows=WindowPlan(4, 2, "mean"))
    (model_input,) = ours.tokenise(["word " * 100, "word " * 24])
    assert model_input.extents == (Extent(26, 102), Extent(26, 102), Extent(26, 26), Extent(26, 26))
    assert model_input.truncated == (True, True, False, False)
    assert model_input.take([3]).extents == (Extent(26, 26),)


def test_a_window_needs_a_token_of_its_own(bert: Any) -> None:
    TransformersTokeniser(bert, max_tokens=16, windows=WindowPlan(13, 2, "mean"))
    with pytest.raises(
        SettingsError, match=r"input\.stride \(14\) must be less than the 14 tokens"
    ):
        TransformersTokeniser(bert, max_tokens=16, windows=WindowPlan(14, 2, "mean"))


def test_progress_is_reported_during_a_long_text(bert: Any) -> None:
    steps: list[None] = []
    ours = TransformersTokeniser(bert, max_tokens=16, windows=WindowPlan(4, 2, "mean"))
    ours.tokenise(["word " * 20_000, "Hi"], lambda: steps.append(None))
    assert len(steps) > 3


def test_tokenisers_with_the_same_key_give_the_same_ids(bert: Any) -> None:
    """Several models with the same tokenizer share its work."""
    key = tokeniser(bert).key
    assert key == tokeniser(bert).key
    assert key is not None
    assert key != tokeniser(bert, MAX_TOKENS - 1).key
    assert (
        key
        != TransformersTokeniser(bert, max_tokens=MAX_TOKENS, windows=WindowPlan(2, 2, "mean")).key
    )
    other = AutoTokenizer.from_pretrained(bert_tokenizer())  # the option changes the tokenizer
    assert key != TransformersTokeniser(other, max_tokens=MAX_TOKENS, spelt=False).key


def test_a_tokenizer_in_python_has_no_key() -> None:
    slow: Any = ByT5Tokenizer
    assert tokeniser(slow()).key is None
