"""How far a forward pass is from each text alone in a plain one, on texts such as a worker meets.

Owns the texts and the tolerance. Runs at start. Must not import transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from worker.clock import Clock
from worker.core.records import Activation
from worker.inference.tokeniser import TransformersTokeniser
from worker.inference.torch_engine import Forward, scores

Rows = Sequence[Sequence[int]]

# The largest difference of a probability that counts as none: rounding in another order, for
# float32; for bfloat16, with its 8 bits of precision, what never turned a clear label.
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}
# The same for texts that share a pass of one type: no more than rounding in another order.
MATES_TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.03}
# Tokens of the longest text: past ModernBERT's window of 64 to either side, and no dearer than it
# must be, for a start waits for it.
LONGEST = 160

_GROUP = 8  # texts of a padded pass
# Seconds that a start gives to texts one at a time, and how many there are however long they take.
_PATIENCE, _FEWEST = 3.0, 3

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
class Answers:
    """Probabilities [texts, labels] of texts that were each alone in a pass, longest text first."""

    rows: Rows
    probabilities: Tensor
    activation: Activation


def check_rows(tokenizer: Any, takes: int | None, turning_point: int = 0) -> Rows:
    """Ids of the texts to check with, a long one among them, longest first.

    Args:
        tokenizer: the model's.
        takes: tokens of the longest text that the model takes; None where nothing limits it.
        turning_point: tokens from which on the model works in another way; the long text has them.
    """
    longest = max(LONGEST, turning_point)
    tokeniser = TransformersTokeniser(tokenizer, max_tokens=min(takes or longest, longest))
    all_of_them = " ".join(TEXTS)
    repeated = 1 + longest // LONGEST
    (rows,) = tokeniser.tokenise([*TEXTS, " ".join([all_of_them] * repeated)])
    return rows.ids


def few(rows: Rows) -> Rows:
    """Enough of them to tell whether texts change each other, if not how far rounding goes."""
    return [*rows[:-1:3], rows[-1]]


def answers(alone: Forward, rows: Rows, activation: Activation, clock: Clock) -> Answers:
    """Label each text alone, or some of them where the model is slow.

    Args:
        alone: runs the model.
        rows: ids of the texts, longest first.
        activation: makes probabilities of its outputs.
        clock: ends it after some seconds, but not before a long text, a short one and a middling one.
    """
    telling = [rows[0], rows[-1], rows[len(rows) // 2]]
    until = clock.monotonic() + _PATIENCE
    found: list[tuple[Sequence[int], Tensor]] = []
    for row in [*telling, *(row for row in rows if row not in telling)]:
        if len(found) >= _FEWEST and clock.monotonic() > until:
            break
        found.append((row, scores(alone, [row], activation)))
    found.sort(key=lambda pair: len(pair[0]), reverse=True)
    return Answers([row for row, _ in found], torch.cat([score for _, score in found]), activation)


def difference(forward: Forward, answers: Answers) -> float:
    """The largest difference of a probability; not a number where the model gives none."""
    worst = torch.zeros(())
    for places in _passes(forward, answers.rows):
        found = scores(forward, [answers.rows[place] for place in places], answers.activation)
        worst = torch.maximum(worst, (found - answers.probabilities[places]).abs().max())
    return float(worst)


def _passes(forward: Forward, rows: Rows) -> Iterator[list[int]]:
    """Texts of various lengths that share a pass; a short and a middling one are beside the longest.

    A rectangle around all of them would be dear, and a start waits for it.
    """
    places = list(range(len(rows)))
    if not forward.pads:
        yield places
        return
    yield [places[0], places[len(places) // 2], places[-1]]
    yield from (places[start : start + _GROUP] for start in range(1, len(places), _GROUP))
