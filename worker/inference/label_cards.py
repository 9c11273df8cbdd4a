"""The labels of a worker's models, read without their weights.

`streamlabel topics`, `check` and `routes` need them for the topics of routes with `{label}`.

Owns: nothing.
Thread: main, of a command.
Must not import: kafka_io, runtime.
"""

from __future__ import annotations

from worker.core.decisions.rules import bind
from worker.core.decisions.treatment import treatment
from worker.core.records import ModelCard
from worker.core.route_topics import Cards
from worker.inference.described import describe
from worker.settings import Settings, plans


def label_cards(settings: Settings) -> Cards:
    """Return the cards of the models, by their names; they have labels and decision only.

    Raises:
        ModelUnavailable, SettingsError: as `describe`, and if a decision does not fit its model.
    """
    return {plan.name: _card(plan.settings) for plan in plans(settings)}


def _card(settings: Settings) -> ModelCard:
    described = describe(settings.model)
    labels, rule = described.labels, treatment(settings).decision
    bound = bind(rule, labels, described.activation) if rule else None
    return ModelCard(
        name=described.checkpoint.name,
        revision=described.checkpoint.revision,
        weights_sha256="",
        labels=bound.labels if bound else labels,
        max_tokens=0,
        engine="",
        dtype="",
        device="",
        activation=described.activation,
        decision=bound,
    )
