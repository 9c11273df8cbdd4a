"""Texts to token ids, sorted by length, so that those of one forward pass are of similar length.

Owns the tokenizer, whose padding and truncation settings are state inside the Rust object: only
the tokenise thread may call it. Must not import torch.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from typing import Any

from schemas.dead_letter import DeadLetterReason
from worker.core.records import ModelInput
from worker.errors import ModelUnavailable, RecordRejected, SettingsError

Ids = tuple[int, ...]

_SURROGATE = re.compile("[\ud800-\udfff]")
# Not `\s`: BERT drops \x1c..\x1f without ending a word, and takes them for no space.
_SPACE = re.compile("[ \t\r\n]")
# Characters of a text to look at first, for each token that the model takes.
_CHARACTERS_A_TOKEN = 8
# For tokenizers that merge the letters of a word in Python: at most so many letters of a word, which
# takes the square of them in time (8,000 take 1.6 s), and about so many words in their memory, which
# they never empty by themselves.
_LETTERS, _WORDS = 500, 50_000
_LONG_WORD = re.compile(rf"(\S{{{_LETTERS}}})\S+")
# Tokens of the vocabulary to try for one that comes out of a text.
_PROBES = 200
# Tokens at the end of a head that may come out otherwise in the whole text.
_MARGIN = 16


class TransformersTokeniser:
    """Turns texts into ModelInputs for one model.

    Args:
        tokenizer: a tokenizer of transformers, fast or slow.
        max_tokens: longest text the model takes, special tokens included.
        ids_below: what every id must be below; None where the tokenizer gives no other.

    Raises:
        SettingsError: no text would fit at all.
        ModelUnavailable: the tokenizer does more than put special tokens around a text.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int, ids_below: int | None = None) -> None:
        self._tokenizer, self._ids_below = tokenizer, ids_below
        self._before, self._after = special_tokens(tokenizer)
        self._room = max_tokens - len(self._before) - len(self._after)
        if self._room < 1:
            raise SettingsError(
                f"model.max_tokens ({max_tokens}) leaves no token for the text beside the model's "
                f"{len(self._before) + len(self._after)} special tokens"
            )
        self._keeps_end = tokenizer.truncation_side == "left"
        self._window = sys.maxsize if self._keeps_end else max_tokens * _CHARACTERS_A_TOKEN
        self._stand_in = _stand_in(tokenizer)
        self._merges_slowly = callable(getattr(tokenizer, "bpe", None)) and not tokenizer.is_fast

    def tokenise(self, texts: Sequence[str]) -> list[ModelInput]:
        """Every text's ids, longest texts first; whoever runs them cuts them into passes.

        A text of more than `max_tokens` is cut to that many, special tokens included, and flagged.

        Raises:
            RecordRejected: a text has a token that the model does not know.
        """
        if not texts:
            return []
        whole = [well_formed(text) for text in texts]
        kept = self._with_short_words(whole) if self._merges_slowly else whole
        contents = self._contents(kept)
        rows = [self._framed(content) for content in contents]
        if self._ids_below is not None:
            _refuse_unknown(rows, self._ids_below)
        positions = sorted(range(len(rows)), key=lambda i: len(rows[i]), reverse=True)
        return [
            ModelInput(
                ids=tuple(rows[i] for i in positions),
                positions=tuple(positions),
                truncated=tuple(
                    len(contents[i]) > self._room or len(kept[i]) < len(whole[i]) for i in positions
                ),
            )
        ]

    def _with_short_words(self, texts: Sequence[str]) -> list[str]:
        """The texts with the beginning of each word of more than `_LETTERS`."""
        remembered = getattr(self._tokenizer, "cache", {})
        if len(remembered) > _WORDS:
            remembered.clear()
        return [_LONG_WORD.sub(r"\1", text) for text in texts]

    def _contents(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of each text, special tokens not included; where there are too many, not all of them.

        A megabyte costs the better part of a second, and the model looks at its first kilobytes. So
        the head of a text comes first, up to the end of a word; where it turns out to be too short
        (a word may be one token, and a control character none), a head four times as long.
        """
        ends = [_end_of_word(text, self._window) for text in texts]
        contents = self._encode([text[:end] for text, end in zip(texts, ends, strict=True)])
        for i, text in enumerate(texts):
            end = ends[i]
            while end < len(text) and len(contents[i]) < self._room + _MARGIN:
                end = _end_of_word(text, 4 * end)
                contents[i] = self._encode([text[:end]])[0]
        return contents

    def _encode(self, texts: list[str]) -> list[list[int]]:
        return _ids(self._tokenizer, texts, special=False)

    def _framed(self, content: list[int]) -> Ids:
        kept = content[-self._room :] if self._keeps_end else content[: self._room]
        return (*self._before, *kept, *self._after) or self._stand_in


def well_formed(text: str) -> str:
    r"""The text with U+FFFD for each lone surrogate.

    JSON may carry half of a surrogate pair (`"\ud800"`); Python keeps it in a str, but it has no
    UTF-8, in which the Rust tokenizers take their texts.
    """
    return _SURROGATE.sub("\ufffd", text)


def _end_of_word(text: str, start: int) -> int:
    """Where the first white space at or after `start` lies; the text's end if there is none."""
    found = _SPACE.search(text, start) if start < len(text) else None
    return found.start() if found else len(text)


def _refuse_unknown(rows: Sequence[Ids], ids_below: int) -> None:
    """Here, and not in the model: on a GPU an id without a row ends all computing of the process."""
    for row in rows:
        if (largest := max(row)) >= ids_below:
            raise RecordRejected(
                DeadLetterReason.TOKENISER_FAILED,
                f"the text has the token of id {largest}, the model has ids below {ids_below}: "
                "save it after model.resize_token_embeddings(len(tokenizer))",
            )


def _ids(tokenizer: Any, texts: list[str], *, special: bool) -> list[list[int]]:
    encoded = tokenizer(
        texts,
        add_special_tokens=special,
        padding=False,  # said on every call: a tokenizer file may bring its own padding ...
        truncation=False,  # ... and truncation
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # no advice about long texts, which are cut here
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def special_tokens(tokenizer: Any) -> tuple[Ids, Ids]:
    """The ids that the tokenizer puts before and after a text."""
    text = _text_of_tokens(tokenizer)
    (bare,), (whole,) = (_ids(tokenizer, [text], special=special) for special in (False, True))
    for start in range(len(whole) - len(bare) + 1):
        end = start + len(bare)
        if whole[start:end] == bare:
            return tuple(whole[:start]), tuple(whole[end:])
    raise ModelUnavailable(
        "the model's tokenizer changes a text when it adds special tokens, which is not supported; "
        "choose another model"
    )


def _text_of_tokens(tokenizer: Any) -> str:
    """A text of which the tokenizer makes a token; it may know no letter a, nor an unknown token.

    Raises:
        ModelUnavailable: it makes none of its own vocabulary.
    """
    if _ids(tokenizer, ["a"], special=False)[0]:
        return "a"
    special = set(tokenizer.all_special_ids)
    known = range(0, len(tokenizer), max(1, len(tokenizer) // _PROBES))
    texts: list[str] = [tokenizer.decode([number]) for number in known]
    for text, ids in zip(texts, _ids(tokenizer, texts, special=False), strict=True):
        if ids and not special & set(ids):
            return text
    raise ModelUnavailable(
        "the model's tokenizer makes no token of any text: fetch or save its files again"
    )


def _stand_in(tokenizer: Any) -> Ids:
    """What stands for a text of no token at all: models without special tokens take no empty row."""
    names = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")
    found = (getattr(tokenizer, name) for name in names)
    return (next((i for i in found if i is not None), 0),)
