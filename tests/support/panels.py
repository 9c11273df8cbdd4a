"""Models for tests of several models: each labels a text by a rule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from tests.support.records import CARD
from worker.core.model import Step, Synchronous, no_step
from worker.core.model_set import SetMember
from worker.core.records import ModelCard, ModelInput, Prediction
from worker.settings import Settings, load, plans


class RuleModel(Synchronous):
    """Gives a text the label that a rule chooses, with probability 0.9.

    Attributes:
        tokenised, labelled: the texts that it got.
    """

    def __init__(self, card: ModelCard, rule: Callable[[str], str]) -> None:
        self.card, self._rule = card, rule
        self.tokenised: list[str] = []
        self.labelled: list[str] = []
        self.warm = False

    def tokenise(self, texts: Sequence[str], step: Step = no_step) -> list[ModelInput]:
        step()
        self.tokenised += texts
        rows = tuple(tuple(map(ord, text)) for text in texts)
        return [ModelInput(rows, tuple(range(len(texts))), (False,) * len(texts))]

    def warm_up(self) -> None:
        self.warm = True

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        texts = ["".join(map(chr, ids)) for ids in model_input.ids]
        self.labelled += texts
        return [self._prediction(text) for text in texts]

    def _prediction(self, text: str) -> Prediction:
        label, labels = self._rule(text), self.card.labels
        other = 0.1 / max(1, len(labels) - 1)
        scores = tuple(0.9 if name == label else other for name in labels)
        return Prediction(scores, len(text), truncated=False)


def rule_card(name: str, *labels: str) -> ModelCard:
    """Return the card of a model with these labels, and weights of its own."""
    return replace(CARD, name=name, labels=labels, weights_sha256=name[:1].encode().hex() * 32)


def panel_settings(models: str, **flags: object) -> Settings:
    """Return settings with these models, a TOML value on any number of lines."""
    return load({"models": " ".join(models.split()), **flags}, environ={}).settings


def set_members(settings: Settings, **models: RuleModel) -> list[SetMember]:
    """Return the members of a set, in the order of the settings."""
    return [
        SetMember(plan, models[plan.name or ""], models[plan.name or ""])
        for plan in plans(settings)
    ]
