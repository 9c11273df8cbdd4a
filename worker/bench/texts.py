"""The texts of a bench, from a file or selected from a sample.

Owns: reading, selecting and repeating them.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

from worker.errors import SettingsError


def read_texts(path: Path) -> list[str]:
    """Return the file's lines that are not blank. Raises SettingsError if there are none."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"--texts: can't read {path} ({error}); give a UTF-8 file with one text a line"
        ) from None
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise SettingsError(f"--texts: {path} has no texts; give a UTF-8 file with one text a line")
    return texts


def repeated(texts: Sequence[str], number: int) -> list[str]:
    """Return `number` texts: an even selection of a longer list, or a shorter one repeated."""
    if len(texts) >= number:
        return [texts[index * len(texts) // number] for index in range(number)]
    return [texts[index % len(texts)] for index in range(number)]


def drawn(texts: Sequence[str], number: int, turn: int) -> list[str]:
    """Return `number` texts for one turn, in an order of its own.

    A stream never repeats itself, so each turn draws other texts until all have been drawn. The
    lengths of each turn are distributed as those of all texts: a turn is an even selection from the
    texts sorted by length.
    """
    by_length = sorted(texts, key=len)
    stride = max(1, len(texts) // number)
    chosen = repeated(by_length[turn % stride :: stride], number)
    random.Random(turn).shuffle(chosen)
    return chosen


def reordered(texts: Sequence[str], order: int) -> list[str]:
    """Return the texts in another order; the same number gives the same order."""
    return random.Random(order).sample(texts, len(texts))
