"""Divides labelled texts into folds, so that figures come from texts that nothing was fitted on.

Owns: the choice of a text's fold.
Thread: main, in `streamlabel calibrate`; pure.
Must not import: any other module of the worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence


def folds_of(
    texts: Sequence[str], truths: Sequence[Collection[int]], folds: int
) -> tuple[int, ...]:
    """Return the fold of each text, 0 to `folds` - 1.

    Equal texts share a fold, because a repeated text would be fitted on and measured on at once.
    Distinct texts are dealt out in the order of their labels, so that each fold has its part of
    every label; texts of the same labels are in the order of their digests, so that the order of
    the file does not matter.

    Args:
        texts: any number.
        truths: the labels of each text. The first of equal texts decides.
        folds: at least 2.
    """
    labels: dict[str, Collection[int]] = {}
    for text, truth in zip(texts, truths, strict=True):
        labels.setdefault(text, truth)
    order = sorted(labels, key=lambda text: (sorted(labels[text]), _digest(text)))
    fold = {text: position % folds for position, text in enumerate(order)}
    return tuple(fold[text] for text in texts)


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogatepass")).digest()
