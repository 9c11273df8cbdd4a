"""Reads a long text in pieces, so that no call of the tokenizer takes long.

The ids are those of the whole text. A tokenizer may join any characters, so each cut is tried on
the text around it first: with and without the cut, the tokenizer must give the same ids.

Owns: where a text is cut.
Thread: tokenise.
Must not import: torch, transformers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Final

from worker.core.model import Step

Encode = Callable[[list[str]], list[list[int]]]

# Characters of a piece: some thousand tokens, which take a fast tokenizer some milliseconds.
PIECE: Final = 16_384
# One space between two letters or digits. Beside other characters a tokenizer may have a token of
# several spaces, or a special token that takes the spaces around it.
_CUT: Final = re.compile(r"(?<=\w) (?=\w)")
# Characters on either side that a cut is tried on, and cuts that are tried before the rest of the
# text is read at once.
_AROUND: Final = 200
_TRIES: Final = 4


def read_whole(encode: Encode, texts: Sequence[str], step: Step) -> list[list[int]]:
    """Return the ids of each text, without special tokens.

    Args:
        encode: the tokenizer.
        texts: at least one. Those of up to a piece are read in one call.
        step: called before each call for a longer text.
    """
    short = [i for i, text in enumerate(texts) if len(text) <= PIECE]
    contents: list[list[int]] = [[] for _ in texts]
    for i, ids in zip(short, encode([texts[i] for i in short]) if short else (), strict=True):
        contents[i] = ids
    for i, text in enumerate(texts):
        if len(text) > PIECE:
            contents[i] = _read(encode, text, step)
    return contents


def _read(encode: Encode, text: str, step: Step) -> list[int]:
    ids: list[int] = []
    for piece in _pieces(encode, text):
        step()
        ids += encode([piece])[0]
    return ids


def _pieces(encode: Encode, text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > PIECE:
        cut = _safe_cut(encode, text, start + PIECE)
        yield text[start:cut]
        start = cut
    if start < len(text):
        yield text[start:]


def _safe_cut(encode: Encode, text: str, after: int) -> int:
    """Return the first index from `after` on that may be cut at; the text's end if none is found.

    It is searched within one piece, so that a text without spaces is not searched again and again.
    """
    places = _CUT.finditer(text, after, after + PIECE)
    cuts = [place.start() for place in islice(places, _TRIES)]
    sides = [(text[max(cut - _AROUND, 0) : cut], text[cut : cut + _AROUND]) for cut in cuts]
    parts = [part for left, right in sides for part in (left, right, left + right)]
    ids = iter(encode(parts) if parts else ())
    for cut, left, right, both in zip(cuts, ids, ids, ids, strict=True):
        if left + right == both:
            return cut
    return len(text)
