"""Tells what a model, or each of several, says of a text: for the page, and for POST /classify.

Owns: the members of such an answer.
Thread: any; pure.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from worker.core.absences import Absence, Part
from worker.core.decided_members import marks
from worker.core.records import Classified, ModelCard, Prediction

Json = dict[str, Any]

_SCORES: Final = 5  # labels shown for a text, the most probable ones


def shown(outcome: Classified) -> Json:
    """Return what a list of posts shows: scores, the decision, and a part for each model."""
    if outcome.parts is None:
        return _decision(outcome.prediction, outcome.model)
    parts = [{"name": name} | _part(part) for name, part in outcome.parts.items()]
    return {"parts": parts, "scores": next((p["scores"] for p in parts if "scores" in p), [])}


def answered(outcome: Classified) -> Json:
    """Return what POST /classify answers, but for the time."""
    if outcome.parts is None:
        return _answer(outcome.prediction, outcome.model)
    said: Json = {"classifications": {}, "absences": {}}
    for name, part in outcome.parts.items():
        if isinstance(part, Absence):
            said["classifications"][name], said["absences"][name] = None, part.reason
        else:
            said["classifications"][name] = _answer(part.prediction, part.card)
    return said


def _part(part: Part | Absence) -> Json:
    if isinstance(part, Absence):
        return {"absent": part.reason}
    return _decision(part.prediction, part.card)


def _answer(prediction: Prediction, card: ModelCard) -> Json:
    """Return one model's answer; what belongs to a feature is there only if that is on."""
    said = _decision(prediction, card)
    document = {
        "label": said["scores"][0][0],
        **said,
        "token_count": prediction.token_count,
        "truncated": prediction.truncated,
    }
    if card.recipe is not None:
        document["prepared"] = card.recipe
    if card.windows is not None:
        document |= {"windows": prediction.windows, "total_tokens": prediction.total_tokens}
    return document


def _decision(prediction: Prediction, card: ModelCard) -> Json:
    scores = top_scores(card.labels, prediction.probabilities)
    return {"scores": scores} | marks(card, prediction)


def top_scores(labels: Sequence[str], probabilities: Sequence[float]) -> list[tuple[str, float]]:
    """Return the five most probable labels with their probabilities, highest first."""
    pairs = zip(labels, probabilities, strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])[:_SCORES]
