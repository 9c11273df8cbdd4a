"""A long text is read in pieces, and its ids are those of the whole text."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, normalizers
from tokenizers.models import BPE, Unigram, WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer, ByteLevel, Metaspace
from tokenizers.trainers import BpeTrainer, UnigramTrainer, WordPieceTrainer

from tests.support.models import bert_tokenizer
from worker.core.model import no_step
from worker.inference import reading
from worker.inference.reading import read_whole

_CORPUS = [
    "the staff was friendly and the room was clean, but the lift did not work at all",
    "I waited two hours for 1 coffee; it was cold. Never again!  Never, ever.",
    "Das Zimmer war sauber, das Frühstück gut, und der Kaffee leider kalt.",
]
_SPECIAL = [
    AddedToken("<mask>", special=True, lstrip=True),
    AddedToken("<end>", special=True, rstrip=True),
    AddedToken("two hours"),
]


def _word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = BertNormalizer(), BertPreTokenizer()
    tokenizer.train_from_iterator(
        _CORPUS, WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]"])
    )
    return tokenizer


def _bytes() -> Tokenizer:
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    alphabet = ByteLevel.alphabet()
    tokenizer.train_from_iterator(_CORPUS, BpeTrainer(vocab_size=400, initial_alphabet=alphabet))
    return tokenizer


def _sentence_pieces() -> Tokenizer:
    tokenizer = Tokenizer(Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = Metaspace()
    trainer = UnigramTrainer(vocab_size=120, unk_token="<unk>", special_tokens=["<unk>"])
    tokenizer.train_from_iterator(_CORPUS, trainer)
    return tokenizer


def _without_words() -> Tokenizer:
    """As the first Llama's: a text begins with a space of its own, and no step finds words."""
    tokenizer = Tokenizer(BPE(unk_token="<unk>", fuse_unk=True))
    replaced = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replaced])
    trainer = BpeTrainer(vocab_size=200, special_tokens=["<unk>"])
    tokenizer.train_from_iterator([text.replace(" ", "▁") for text in _CORPUS], trainer)
    return tokenizer


def _bert() -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(bert_tokenizer() / "tokenizer.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


_KINDS: dict[str, Callable[[], Tokenizer]] = {
    "bert": _bert,
    "word pieces": _word_pieces,
    "bytes": _bytes,
    "sentence pieces": _sentence_pieces,
    "without words": _without_words,
}


@cache
def encoder(kind: str) -> reading.Encode:
    tokenizer = _KINDS[kind]()
    tokenizer.add_tokens(_SPECIAL)

    def encode(texts: list[str]) -> list[list[int]]:
        rows = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [row.ids for row in rows]

    return encode


@pytest.fixture
def short_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "PIECE", 24)


_WORDS = st.sampled_from(
    [
        *(
            "the",
            "staff",
            "coffee",
            " ",
            "  ",
            "\n",
            "\t",
            ".",
            "'s",
            "…",
            "ﬁ",
            "e\u0301",
            "\u0301",
        ),
        *(
            "two hours",
            "<mask>",
            "<end>",
            "[UNK]",
            "▁",
            "_",
            "1",
            "日本",
            "😀",
            "\u200b",
            "friendly",
        ),
    ]
)


@pytest.mark.parametrize("kind", _KINDS)
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parts=st.lists(_WORDS, max_size=80), joiner=st.sampled_from(["", " "]))
@example(parts=["two hours"] * 20, joiner=" ")
@example(parts=["coffee <mask> coffee <end> coffee"] * 8, joiner=" ")
def test_the_ids_of_the_pieces_are_those_of_the_whole(
    short_pieces: None, kind: str, parts: list[str], joiner: str
) -> None:
    encode, text = encoder(kind), joiner.join(parts)
    assert read_whole(encode, [text, "Hi"], no_step) == encode([text, "Hi"])


@pytest.mark.parametrize("kind", [kind for kind in _KINDS if kind != "without words"])
def test_no_call_gets_more_than_two_pieces(kind: str) -> None:
    """Also for a megabyte, and every call is reported."""
    longest = steps = 0

    def counting(texts: list[str]) -> list[list[int]]:
        nonlocal longest
        longest = max(longest, sum(map(len, texts)))
        return encoder(kind)(texts)

    def step() -> None:
        nonlocal steps
        steps += 1

    text = " ".join(_CORPUS * 5_000)
    assert read_whole(counting, [text], step) == encoder(kind)([text])
    assert longest < 2 * reading.PIECE
    assert steps >= len(text) // (2 * reading.PIECE)


def test_a_tokenizer_that_no_text_may_be_cut_for_gets_the_whole_text() -> None:
    calls: list[int] = []

    def noting(texts: list[str]) -> list[list[int]]:
        calls.append(max(map(len, texts)))
        return encoder("without words")(texts)

    text = " ".join(_CORPUS * 500)
    assert read_whole(noting, [text], no_step) == encoder("without words")([text])
    assert calls == [400, len(text)], "cuts are tried on a few characters"


def test_a_text_without_spaces_is_read_at_once() -> None:
    calls: list[int] = []

    def noting(texts: list[str]) -> list[list[int]]:
        calls.append(sum(map(len, texts)))
        return [[len(text)] for text in texts]

    assert read_whole(noting, ["x" * 100_000], no_step) == [[100_000]]
    assert calls == [100_000]
