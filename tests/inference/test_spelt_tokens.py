"""A special token that a text spells stays text, in every kind of tokenizer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, ByT5Tokenizer, PreTrainedTokenizerFast

from tests.support.models import Architecture, bert_tokenizer
from worker.inference.tokeniser import TransformersTokeniser

UNKNOWN, END = 0, 2


@pytest.fixture
def bert() -> Any:
    return AutoTokenizer.from_pretrained(bert_tokenizer())


@pytest.fixture
def unigram() -> Any:
    """A tokenizer like XLM-RoBERTa's: its vocabulary has the special tokens as usual pieces."""
    pieces = ["<unk>", "<s>", "</s>", *("▁" + c for c in "ab<"), *"ab</s>", "▁"]
    model = Unigram([(piece, 0.0 if i < 3 else -float(i)) for i, piece in enumerate(pieces)], 0)
    made = Tokenizer(model)
    made.pre_tokenizer = Metaspace()
    made.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", END)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


def content(tokenizer: Any, text: str, *, spelt: bool = True) -> list[int]:
    """Return the ids of a text, without the special tokens around it."""
    ours = TransformersTokeniser(tokenizer, max_tokens=64, spelt=spelt)
    (ids,) = ours.tokenise([text])[0].ids
    ends = {tokenizer.cls_token_id, tokenizer.bos_token_id}
    start = 1 if len(ids) > 1 and ids[0] in ends else 0
    return list(ids[start:-1] if start else ids)


def test_a_separator_that_is_spelt_is_text_to_bert(bert: Any) -> None:
    ids = content(bert, "good [SEP] bad")
    assert bert.sep_token_id not in ids
    assert bert.convert_ids_to_tokens(ids) == ["good", "[", "sep", "]", "bad"]


def test_transformers_reads_a_separator(bert: Any) -> None:
    """The reason for all this: the default of transformers lets a writer part the text."""
    assert bert("good [SEP] bad")["input_ids"].count(bert.sep_token_id) == 2
    assert bert.sep_token_id in content(bert, "good [SEP] bad", spelt=False)


@pytest.mark.parametrize("architecture", ["roberta", "gpt2"])
def test_an_end_that_is_spelt_is_text_to_a_tokenizer_of_bytes(
    checkpoint: Callable[[Architecture], Path], architecture: Architecture
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(architecture))
    special = tokenizer.all_special_tokens
    ids = content(tokenizer, "a".join(special))
    assert not set(ids) & set(tokenizer.all_special_ids)
    assert tokenizer.decode(ids) == "a".join(special)
    assert set(content(tokenizer, "a".join(special), spelt=False)) & set(tokenizer.all_special_ids)


def test_an_end_that_is_a_piece_of_the_vocabulary_is_text(unigram: Any) -> None:
    ids = content(unigram, "a</s>b")
    assert END not in ids
    assert unigram.convert_ids_to_tokens(ids) == ["▁a", "▁<", "▁", "/", "▁", "s", "▁", ">", "b"]
    assert END in content(unigram, "a</s>b", spelt=False)


def test_other_texts_of_that_vocabulary_are_as_before(unigram: Any) -> None:
    assert content(unigram, "ab ba") == content(unigram, "ab ba", spelt=False)
    assert UNKNOWN in content(unigram, "a?b"), "a character that it lacks is no spelt token"


def test_a_slow_tokenizer_keeps_them_text_too() -> None:
    ids = content(ByT5Tokenizer(), "a</s>b")
    assert ids[:-1] == [b + 3 for b in b"a</s>b"], "the last one ends the text"


def test_a_tokenizer_without_special_tokens_is_left_as_it_is() -> None:
    made = Tokenizer(Unigram([("<unk>", 0.0), ("a", -1.0)], 0))
    assert content(PreTrainedTokenizerFast(tokenizer_object=made), "aa") == [1, 1]
