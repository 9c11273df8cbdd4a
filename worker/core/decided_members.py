"""The members that preparation, decisions and windows change in a result, or add to it.

Owns: the values of these members; `schemas.decided` describes them.
Thread: publish for results, infer for answers to the page, main for a command; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

from typing import Any

from worker.core.records import ModelCard, Prediction

Members = dict[str, Any]


def judged(model: ModelCard, prediction: Prediction) -> tuple[str, float, tuple[str, ...]]:
    """Return a text's label, the probability of its best label, and its decided labels."""
    p = prediction.probabilities
    if model.decision is None:
        score = max(p)
        return model.labels[p.index(score)], score, ()
    verdict = model.decision.decide(p)
    return verdict.label, verdict.score, verdict.decided


def added_members(model: ModelCard, prediction: Prediction, decided: tuple[str, ...]) -> Members:
    """Return the members of a result that differ from a plain one's, of the features that are on.

    Args:
        model: of the text.
        prediction: for the text.
        decided: its decided labels.
    """
    members: Members = {}
    if model.recipe is not None:
        members["prepared"] = model.recipe
    if (rule := model.decision) is not None:
        shown = rule.shown(prediction.probabilities)
        members["score"] = rule.rounded(max(prediction.probabilities))
        members["labels"] = [{"label": label, "score": score} for label, score in shown]
        if rule.temperature is not None:
            members["temperature"] = rule.temperature
        if rule.thresholds is not None:
            members["decided"] = list(decided)
    if model.windows is not None:
        members["windows"] = prediction.windows
        members["total_tokens"] = prediction.total_tokens
    return members


def document_of(model: ModelCard, prediction: Prediction) -> Members:
    """Return what a result says of a text, but for the record and the model."""
    label, score, decided = judged(model, prediction)
    pairs = zip(model.labels, prediction.probabilities, strict=True)
    return {
        "label": label,
        "score": score,
        "labels": [{"label": name, "score": one} for name, one in pairs],
        "token_count": prediction.token_count,
        "truncated": prediction.truncated,
        **added_members(model, prediction, decided),
    }


def marks(model: ModelCard, prediction: Prediction) -> Members:
    """Return what the page shows of a decision beside the probabilities; empty without one."""
    if model.decision is None:
        return {}
    label, _, decided = judged(model, prediction)
    marked: Members = {"label": label}
    return marked if model.decision.thresholds is None else marked | {"decided": list(decided)}
