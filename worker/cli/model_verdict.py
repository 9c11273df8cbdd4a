"""The check of the models: loads each, and tells its labels, its preparation and its decision.

Owns: nothing; the models are free when the check has ended.
Thread: main.
Must not import: torch, transformers or kafka; a check loads them when it runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, cast

from worker.core.decisions.rules import unnamed_hint
from worker.core.decisions.treatment import treatment
from worker.core.visible import excerpt
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.core.model_set import ModelSet
    from worker.core.records import ModelCard

_LABELS: Final = 30  # shown
_LABEL_CHARACTERS: Final = 60


def load_described(settings: Settings) -> tuple[ModelCard, str, list[str]]:
    """Load the models; return their card, what they are, and hints about their labels.

    Loading a model also compares its engine with the reference. Several models are loaded one
    beside the other, so that their memory is checked together.

    Raises:
        StreamlabelError: a model can't be loaded, or does not fit the settings.
    """
    return _several(settings) if settings.models else _one(settings)


def _several(settings: Settings) -> tuple[ModelCard, str, list[str]]:
    from worker.inference.load_all import load_all
    from worker.limits import as_mib
    from worker.metrics import Metrics

    _, models = load_all(settings, Metrics(), beside=False, replaces=False, unless=None)
    members = cast("ModelSet", models).members
    told = "; ".join(f"{one.name}: {_facts(one.card)}" for one in members)
    memory = as_mib(getattr(members[-1].classifier, "memory", None) or 0)
    hints = [
        hint
        for one in members
        for hint in unnamed_hint(one.card.labels, f"models.{one.name}.decision")
    ]
    return models.card, f"{told}; a process with them may need {memory} of memory", hints


def _one(settings: Settings) -> tuple[ModelCard, str, list[str]]:
    from worker.inference.warm import load
    from worker.limits import as_mib

    _, classifier = load(
        settings.model,
        settings.batch.forward_tokens,
        settings.processes,
        treatment=treatment(settings),
    )
    card = classifier.card
    memory = f"a process with it may need {as_mib(classifier.memory or 0)} of memory"
    return card, f"{_facts(card)}; {memory}", [*unnamed_hint(card.labels)]


def _facts(card: ModelCard) -> str:
    """Return name, labels, limits and engine, and what is on of preparation and decision."""
    labels = [excerpt(label, _LABEL_CHARACTERS) for label in card.labels[:_LABELS]]
    if len(card.labels) > _LABELS:
        labels.append(f"and {len(card.labels) - _LABELS:,} more")
    facts = [
        f"{card.name} ({card.revision}) has the labels {', '.join(labels)}",
        f"up to {card.max_tokens} tokens",
        f"{card.engine} engine, {card.dtype} on {card.device}",
    ]
    return "; ".join([*facts, *_features(card)])


def _features(card: ModelCard) -> Iterator[str]:
    if card.windows is not None:
        yield "long texts in windows"
    if card.recipe is not None:
        yield f"texts prepared by {card.recipe}"
    if card.decision is not None:
        yield f"decision {card.decision.digest}"
