"""The members that preparation, decisions and windows change in a result, or add to it.

Owns: the values of these members; `schemas.decided` describes them.
Thread: publish; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

from typing import Any

from worker.core.records import Classified


def judged(outcome: Classified) -> tuple[str, float, tuple[str, ...]]:
    """Return a result's label, the probability of its best label, and its decided labels."""
    p, model = outcome.prediction.probabilities, outcome.model
    if model.decision is None:
        score = max(p)
        return model.labels[p.index(score)], score, ()
    verdict = model.decision.decide(p)
    return verdict.label, verdict.score, verdict.decided


def added_members(outcome: Classified, decided: tuple[str, ...]) -> dict[str, Any]:
    """Return the members of `schemas.decided` whose features are on.

    Args:
        outcome: of a record.
        decided: its decided labels.
    """
    model, prediction, members = outcome.model, outcome.prediction, dict[str, Any]()
    if model.recipe is not None:
        members["prepared"] = model.recipe
    if (decision := model.decision) is not None:
        shown = decision.shown(prediction.probabilities)
        members["score"] = decision.rounded(max(prediction.probabilities))
        members["labels"] = [{"label": label, "score": score} for label, score in shown]
        if decision.temperature is not None:
            members["temperature"] = decision.temperature
        if decision.thresholds is not None:
            members["decided"] = list(decided)
    if model.windows is not None:
        members["windows"] = prediction.windows
        members["total_tokens"] = prediction.total_tokens
    return members
