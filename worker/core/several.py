"""The members of a result that several models give.

Owns: the values of these members; `schemas.classifications` describes them.
Thread: publish; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

from typing import Any

from worker.core.absences import Absence, Part, Parts
from worker.core.decided_members import document_of, judged
from worker.core.records import ModelCard, Prediction


def members_of_models(parts: Parts) -> dict[str, Any]:
    """Return what each model says, and why some say nothing."""
    return {
        "classifications": {
            name: _said(part) if isinstance(part, Part) else None for name, part in parts.items()
        },
        "absences": {
            name: part.reason for name, part in parts.items() if isinstance(part, Absence)
        },
    }


def _said(part: Part) -> dict[str, Any]:
    return document_of(part.card, part.prediction) | {"model": model_member(part.card)}


def model_member(card: ModelCard) -> dict[str, str]:
    """Return the member `model` of a result."""
    return {
        "name": card.name,
        "revision": card.revision,
        "weights_sha256": card.weights_sha256,
    }


def first_verdict(parts: Parts) -> tuple[str, float, tuple[str, ...]]:
    """Return the label of the first model, its probability and its decided labels.

    They stand for the record where one label is counted. If the first model says nothing, the
    label is empty.
    """
    first = next(iter(parts.values()))
    return judged(first.card, first.prediction) if isinstance(first, Part) else ("", 0.0, ())


def is_uncertain(model: ModelCard, label: str) -> bool:
    """Return whether a label is the uncertain one of the model, or of the first of several."""
    first = model.members[0][1] if model.members else model
    return first.decision is not None and bool(label) and label not in first.labels


def truncated(parts: Parts) -> bool:
    """Return whether the text was cut for one of the models."""
    return any(isinstance(part, Part) and part.prediction.truncated for part in parts.values())


def uniform(card: ModelCard, score: float) -> tuple[Prediction, Parts | None]:
    """Return a prediction with one score for each label, of one model or of several."""

    def of(one: ModelCard) -> Prediction:
        return Prediction((score,) * len(one.labels), token_count=1, truncated=False)

    parts = {name: Part(of(one), one) for name, one in card.members}
    return of(card), parts or None
