"""How far a forward pass is from the plain one in float32, on texts such as a worker meets.

Owns the texts and the tolerance. Runs at start. Must not import transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from worker.inference.tokeniser import Tokeniser
from worker.inference.torch_engine import Forward, scores

Rows = Sequence[Sequence[int]]

# The largest difference of a probability that counts as none: rounding in another order, for
# float32; for bfloat16, with its 8 bits of precision, what never turned a clear label.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}
# Tokens of the longest text: past ModernBERT's window of 64 to either side, and no dearer than it
# must be, for a start waits for it.
LONGEST = 160

_GROUP = 8  # texts of the plain pass

TEXTS = (
    "ok",
    "Loved it!!!",
    "worst. update. ever.",
    "no signal since 8 this morning, thanks for nothing",
    "Just landed in Lisbon and the light here is unreal 😍☀️",
    "I've been on hold for 47 minutes. Forty-seven.",
    "Not bad, but not worth twelve euros either.",
    "does anyone know if the museum is open on mondays?",
    "RT @someone: new single out now, link in bio https://example.org/a?b=c&d=1",
    "The package came two days early and everything in it was in one piece.",
    "lol no",
    "¡Qué partido! No me lo puedo creer, tres goles en diez minutos.",
    "Der Zug steht seit einer halben Stunde, und niemand sagt, warum.",
    "Le service était correct, sans plus ; on n'y retournera pas.",
    "サービスがとても良かったです。また来ます!",
    "خدمة سيئة جدا ولن أعود",
    "Обновление сломало всё, верните старую версию",
    "👍👍👍",
    "Honestly I can't tell whether this is brilliant or terrible, and maybe that is the point of it.",
    "#MondayMotivation #coffee #please",
    "Battery lasts a day and a half; the camera is average in poor light; the speaker is tinny.",
    "I wanted to like this book. The first chapter promises so much, and then nothing comes of it.",
    "Your call is important to us 🙃",
    "Congratulations to the whole team, so well deserved 🎉🎉",
)


def check_rows(tokenizer: Any, takes: int | None) -> Rows:
    """Ids of the texts to check with, a long one among them, longest first.

    Args:
        tokenizer: the model's.
        takes: tokens of the longest text that the model takes; None where nothing limits it.
    """
    tokeniser = Tokeniser(tokenizer, max_tokens=min(takes or LONGEST, LONGEST))
    (rows,) = tokeniser.tokenise([*TEXTS, " ".join(TEXTS)])
    return rows.ids


def reference(plain: Forward, rows: Rows, *, independent: bool) -> Tensor:
    """Probabilities [texts, labels] by the plain pass, for a few texts of like length at a time.

    Each alone would be purer; but a start waits for it, and a pass of one short text takes hardly
    less time than one of eight.
    """
    found: list[list[Sequence[int]]] = []
    for text in rows:
        if not found or len(found[-1]) == _GROUP or len(text) < len(found[-1][0]) / 2:
            found.append([text])
        else:
            found[-1].append(text)
    return torch.cat([scores(plain, group, independent=independent) for group in found])


def difference(fast: Forward, rows: Rows, reference: Tensor, *, independent: bool) -> float:
    """The largest difference of a probability; not a number where the model gives none."""
    found = scores(fast, rows, independent=independent)
    return float((found - reference).abs().max())
