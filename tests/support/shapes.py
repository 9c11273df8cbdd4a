"""Records of all shapes: short and long texts, signs of many scripts, words without an end."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Final

_MOST_WORDS: Final = 60
_BROKEN_EVERY: Final = 500  # dead letters must not grow memory either
_PROSE: Final = (
    "the quick brown fox jumps over a lazy dog while wonderful coffee falls on terrible trains, "
    "delayed again and again; unbelievable thanks to everyone who waited"
)
_SIGNS: Final = "日本語のテキスト😀🚀é👩‍🔬ßЖ؟\u200b\t\n .,!@#"


def value(chance: random.Random, number: int) -> bytes:
    """Return the value of the record with this number; some can't be read."""
    if number % _BROKEN_EVERY == 0:
        return b"no JSON"
    (shape,) = chance.choices(_SHAPES, [share for share, _ in _SHAPES])
    return json.dumps({"id": number, "text": shape[1](chance)}).encode()


def _words(chance: random.Random, most: int) -> str:
    return " ".join(chance.choices(_PROSE.split(), k=chance.randint(1, most)))


# Share of the records, and how their texts are made.
_SHAPES: Final[tuple[tuple[float, Callable[[random.Random], str]], ...]] = (
    (0.90, lambda chance: _words(chance, _MOST_WORDS)),
    (0.05, lambda chance: _words(chance, 1)),
    (0.02, lambda chance: _words(chance, 20 * _MOST_WORDS)),  # far more than the model reads
    (0.02, lambda chance: "".join(chance.choices(_SIGNS, k=chance.randint(1, 200)))),
    (0.01, lambda chance: "x" * chance.randint(1, 2_000)),  # one word
)
