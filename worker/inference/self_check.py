"""Measures how far a forward pass differs from the reference: each text alone in a padded pass.

Owns: the texts of the check, and the tolerances.
Thread: load, before a record is read.
Must not import: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.clock import Clock
from worker.core.records import Activation
from worker.inference.classifier import Forward, scores
from worker.inference.tokeniser import TransformersTokeniser

Rows = Sequence[Sequence[int]]

# The largest accepted difference of a probability: for float32, rounding in another order; for
# bfloat16, with its 8 bits of precision, a difference that never changed a clear label.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}
# The same for texts that share a pass of one number type: rounding in another order, no more.
SHARED_PASS_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}
# Tokens of the longest text: beyond ModernBERT's window of 64 to either side, and as short as
# that allows, because the start of a worker waits for the check.
LONGEST = 160

_GROUP = 8  # texts of a padded pass
# Seconds that the check may spend on single texts, and how many it labels in any case: the start of
# a worker waits for it. An engine that is wrong is wrong on nearly every text.
_TIME_LIMIT, _FEWEST = 0.3, 6

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


@dataclass(frozen=True, slots=True)
class Reference:
    """Probabilities [texts, labels] of texts that each had a pass alone, longest text first."""

    rows: Rows
    probabilities: Tensor
    activation: Activation


def check_rows(tokenizer: Any, longest_input: int | None, turning_point: int = 0) -> Rows:
    """Return the ids of the texts to check with, a long one among them, longest first.

    Args:
        tokenizer: the model's.
        longest_input: tokens of the longest text that the model takes; None if there is no limit.
        turning_point: number of tokens from which the model attends in another way; the long text
            has that many.
    """
    longest = max(LONGEST, turning_point)
    max_tokens = min(longest_input or longest, longest)
    tokeniser = TransformersTokeniser(tokenizer, max_tokens=max_tokens)
    joined = " ".join(TEXTS)
    repeats = 1 + longest // LONGEST
    (model_input,) = tokeniser.tokenise([*TEXTS, " ".join([joined] * repeats)])
    return model_input.ids


def subset_of(rows: Rows) -> Rows:
    """Return enough rows to detect texts that change each other's results.

    They are too few to measure the largest rounding difference.
    """
    return [*rows[:-1:3], rows[-1]]


def reference_of(alone: Forward, rows: Rows, activation: Activation, clock: Clock) -> Reference:
    """Label each text alone, or some of the texts if the model is slow.

    Args:
        alone: runs the model.
        rows: ids of the texts, longest first.
        activation: turns the outputs into probabilities.
        clock: ends it in time, but not before a long, a short and a middling text, and some more.
    """
    first = [rows[0], rows[-1], rows[len(rows) // 2]]
    spread = [row for start in range(_FEWEST) for row in rows[start::_FEWEST]]  # over the lengths
    until = clock.monotonic() + _TIME_LIMIT
    labelled: list[tuple[Sequence[int], Tensor]] = []
    for row in [*first, *(row for row in spread if row not in first)]:
        if len(labelled) >= _FEWEST and clock.monotonic() > until:
            break
        labelled.append((row, scores(alone, [row], activation)))
    labelled.sort(key=lambda pair: len(pair[0]), reverse=True)
    probabilities = torch.cat([score for _, score in labelled])
    return Reference([row for row, _ in labelled], probabilities, activation)


def difference(forward: Forward, reference: Reference) -> float:
    """Return the largest difference of a probability; NaN if the model returns NaN."""
    largest = torch.zeros(())
    for indices in _passes(forward, reference.rows):
        table = scores(forward, [reference.rows[i] for i in indices], reference.activation)
        largest = torch.maximum(largest, (table - reference.probabilities[indices]).abs().max())
    return float(largest)


def _passes(forward: Forward, rows: Rows) -> Iterator[list[int]]:
    """Yield groups of texts that share a pass; the longest text has a short and a middling one.

    One rectangle around all texts would be slow, and the start of a worker waits for the check.
    """
    indices = list(range(len(rows)))
    if not forward.pads:
        yield indices
        return
    yield [indices[0], indices[len(indices) // 2], indices[-1]]
    yield from (indices[start : start + _GROUP] for start in range(1, len(indices), _GROUP))
