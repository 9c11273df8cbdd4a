"""Turns texts into token ids, sorted by length, so that texts of similar length share a pass.

Owns: the tokenizer, whose padding and truncation settings are state inside the Rust object.
Thread: tokenise, its only caller.
Must not import: torch.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Hashable, Sequence
from typing import Any

from transformers import PreTrainedTokenizerFast

from schemas.dead_letter import DeadLetterReason
from worker.core.decisions.windows import Extent, WindowPlan
from worker.core.model import Step, no_step
from worker.core.records import ModelInput
from worker.errors import ModelUnavailable, RecordRejected, SettingsError
from worker.inference.reading import read_whole
from worker.inference.spelt_tokens import SpeltTokens, spelt_tokens

Ids = tuple[int, ...]

_SURROGATE = re.compile("[\ud800-\udfff]")
# Not `\s`: BERT drops \x1c..\x1f without ending a word, and does not treat them as spaces.
_SPACE = re.compile("[ \t\r\n]")
# Characters of a text to tokenise first, for each token that the model takes.
_CHARACTERS_A_TOKEN = 8
# Limits for tokenizers that merge the letters of a word in Python: letters of a word, because the
# time grows with their square (8,000 take 1.6 s), and words in the tokenizer's cache, which it
# never empties.
_LETTERS, _WORDS = 500, 50_000
_LONG_WORD = re.compile(rf"(\S{{{_LETTERS}}})\S+")
# Methods of transformers' tokenizers between a call and the Rust object.
_CALLS = ("__call__", "_encode_plus", "_batch_encode_plus")
# Tokens of the vocabulary to try, to find one that a text produces.
_PROBES = 200
# Tokens at the end of a text's head that may differ in the whole text.
_MARGIN = 16


class TransformersTokeniser:
    """Turns texts into ModelInputs for one model.

    Args:
        tokenizer: a tokenizer of transformers, fast or slow.
        max_tokens: longest text that the model takes, special tokens included.
        ids_below: bound that every id must stay below; None if the tokenizer returns no others.
        windows: how long texts are read; None truncates them.
        spelt: whether a special token that a text spells stays text.

    Raises:
        SettingsError: `max_tokens` leaves no token for a text, or a window none of its own.
        ModelUnavailable: the tokenizer does more than put special tokens around a text.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_tokens: int,
        ids_below: int | None = None,
        windows: WindowPlan | None = None,
        spelt: bool = True,
    ) -> None:
        self._tokenizer, self._ids_below, self.windows = tokenizer, ids_below, windows
        tokenizer.split_special_tokens = spelt
        self._before, self._after = special_tokens(tokenizer)
        self._spelt: SpeltTokens | None = None  # until it is known
        self._spelt = spelt_tokens(tokenizer, self._encode) if spelt else None
        self._room = max_tokens - len(self._before) - len(self._after)
        if self._room < 1:
            raise SettingsError(
                f"model.max_tokens ({max_tokens}) leaves no token for the text: the model adds "
                f"{len(self._before) + len(self._after)} special tokens"
            )
        if windows and windows.stride >= self._room:
            raise SettingsError(
                f"input.stride ({windows.stride}) must be less than the {self._room} tokens of a "
                "text that a window holds; lower it, or raise model.max_tokens"
            )
        self._keeps_end = tokenizer.truncation_side == "left"
        self._window = sys.maxsize if self._keeps_end else max_tokens * _CHARACTERS_A_TOKEN
        self._placeholder = _placeholder(tokenizer)
        self._merges_slowly = callable(getattr(tokenizer, "bpe", None)) and not tokenizer.is_fast

    @property
    def key(self) -> Hashable:
        """All that decides the ids of a text: tokenisers with the same key give the same ids.

        A tokenizer whose code is in Python can't be compared, and has None.
        """
        backend = _plain_backend(self._tokenizer)
        if backend is None:
            return None
        file = hashlib.sha256(backend.to_str().encode()).hexdigest()
        splits = (self._tokenizer.split_special_tokens, *self._tokenizer.all_special_ids)
        around = (self._before, self._after)
        bounds = (self._room, self._ids_below, self._window, self.windows)
        return (file, splits, around, bounds, self._keeps_end, self._placeholder)

    def tokenise(self, texts: Sequence[str], step: Step = no_step) -> list[ModelInput]:
        """Return every text's ids in one ModelInput, longest texts first.

        A text of more than `max_tokens` is cut to that many, special tokens included, and flagged,
        or cut into windows. The caller cuts the ModelInput into passes.

        Args:
            texts: any number.
            step: called between the pieces of a long text that is read whole.

        Raises:
            RecordRejected: a text has a token that the model has no embedding for.
        """
        if not texts:
            return []
        whole = [well_formed(text) for text in texts]
        kept = self._with_short_words(whole) if self._merges_slowly else whole
        cut = [len(short) < len(text) for short, text in zip(kept, whole, strict=True)]
        if self.windows:
            return [self._in_windows(read_whole(self._encode, kept, step), cut, self.windows)]
        contents = self._contents(kept)
        rows = [self._framed(content) for content in contents]
        truncated = [
            short or len(content) > self._room for short, content in zip(cut, contents, strict=True)
        ]
        return [self._input(rows, range(len(rows)), truncated)]

    def _in_windows(
        self, contents: Sequence[list[int]], cut: Sequence[bool], plan: WindowPlan
    ) -> ModelInput:
        rows: list[Ids] = []
        positions: list[int] = []
        truncated: list[bool] = []
        extents: list[Extent] = []
        for position, content in enumerate(contents):
            spans = plan.cut(len(content), self._room, from_end=self._keeps_end)
            framed = [self._framed(content[start:stop]) for start, stop in spans]
            added = len(framed[0]) - (spans[0][1] - spans[0][0])
            read = max(stop for _, stop in spans) - min(start for start, _ in spans)
            rows += framed
            positions += [position] * len(spans)
            truncated += [cut[position] or read < len(content)] * len(spans)
            extents += [Extent(read + added, len(content) + added)] * len(spans)
        return self._input(rows, positions, truncated, extents)

    def _input(
        self,
        rows: Sequence[Ids],
        positions: Sequence[int],
        truncated: Sequence[bool],
        extents: Sequence[Extent] = (),
    ) -> ModelInput:
        """Return the rows, the longest first; those of equal length, as windows, stay in order."""
        if self._ids_below is not None:
            _refuse_unknown(rows, self._ids_below)
        lengths = [len(row) for row in rows]
        order = sorted(range(len(rows)), key=lengths.__getitem__, reverse=True)
        return ModelInput(
            ids=tuple([rows[i] for i in order]),
            positions=tuple([positions[i] for i in order]),
            truncated=tuple([truncated[i] for i in order]),
            extents=tuple([extents[i] for i in order]) if extents else (),
        )

    def _with_short_words(self, texts: Sequence[str]) -> list[str]:
        """Return the texts with each word cut to `_LETTERS`."""
        cache = getattr(self._tokenizer, "cache", {})
        if len(cache) > _WORDS:
            cache.clear()
        return [_LONG_WORD.sub(r"\1", text) for text in texts]

    def _contents(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text without special tokens; of a long text, enough of them.

        A megabyte takes the better part of a second, and the model reads its first kilobytes. So
        only the head of a text is tokenised, up to the end of a word. If that gives too few tokens
        (a word may be one token, and a control character none), a head four times as long is tried.
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
        contents = _ids(self._tokenizer, texts, special=False)
        return self._spelt.replaced(contents) if self._spelt else contents

    def _framed(self, content: list[int]) -> Ids:
        kept = content[-self._room :] if self._keeps_end else content[: self._room]
        return (*self._before, *kept, *self._after) or self._placeholder


def well_formed(text: str) -> str:
    r"""Replace each lone surrogate by U+FFFD.

    JSON may hold half of a surrogate pair (`"\ud800"`). Python keeps it in a str, but it can't be
    encoded as UTF-8, which the Rust tokenizers expect.
    """
    return _SURROGATE.sub("\ufffd", text)


def _end_of_word(text: str, start: int) -> int:
    """Return the index of the first white space at or after `start`, or the end of the text."""
    space = _SPACE.search(text, start) if start < len(text) else None
    return space.start() if space else len(text)


def _refuse_unknown(rows: Sequence[Ids], ids_below: int) -> None:
    """Reject ids without an embedding before the model runs: on a GPU one breaks the process."""
    for row in rows:
        if (largest := max(row)) >= ids_below:
            raise RecordRejected(
                DeadLetterReason.TOKENISER_FAILED,
                f"the text has a token of id {largest}, but the model has ids below {ids_below}: "
                "save the model after model.resize_token_embeddings(len(tokenizer))",
            )


def _ids(tokenizer: Any, texts: list[str], *, special: bool) -> list[list[int]]:
    backend = _plain_backend(tokenizer)
    if backend is not None:
        return [row.ids for row in backend.encode_batch_fast(texts, add_special_tokens=special)]
    encoded = tokenizer(
        texts,
        add_special_tokens=special,
        padding=False,  # stated on every call: a tokenizer file may set its own padding ...
        truncation=False,  # ... and truncation
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,  # no advice about long texts, which are cut here
    )
    ids: list[list[int]] = encoded["input_ids"]
    return ids


def _plain_backend(tokenizer: Any) -> Any:
    """Return the Rust object, ready for plain texts; None if the class changes the call to it.

    transformers also asks it for the place of each token in the text, which takes as long again.
    """
    kind = type(tokenizer)
    if not issubclass(kind, PreTrainedTokenizerFast) or any(
        getattr(kind, name, None) is not getattr(PreTrainedTokenizerFast, name, None)
        for name in _CALLS
    ):
        return None
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # a tokenizer file may set both
    backend.no_padding()
    backend.encode_special_tokens = tokenizer.split_special_tokens
    return backend


def special_tokens(tokenizer: Any) -> tuple[Ids, Ids]:
    """Return the ids that the tokenizer puts before and after a text."""
    text = _text_with_tokens(tokenizer)
    (bare,), (whole,) = (_ids(tokenizer, [text], special=special) for special in (False, True))
    for start in range(len(whole) - len(bare) + 1):
        end = start + len(bare)
        if whole[start:end] == bare:
            return tuple(whole[:start]), tuple(whole[end:])
    raise ModelUnavailable(
        "the model's tokenizer changes a text when it adds special tokens, which is not supported; "
        "choose another model"
    )


def _text_with_tokens(tokenizer: Any) -> str:
    """Return a text that gives a token; a tokenizer may know neither "a" nor an unknown token.

    Raises:
        ModelUnavailable: no entry of the vocabulary gives a token.
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
        "the model's tokenizer returns no token for any text: download or save its files again"
    )


def _placeholder(tokenizer: Any) -> Ids:
    """Return ids for a text without tokens, because a model can't take an empty row."""
    names = ("bos_token_id", "eos_token_id", "unk_token_id", "pad_token_id")
    ids = (getattr(tokenizer, name) for name in names)
    return (next((i for i in ids if i is not None), 0),)
