"""Rules that turn a model's probabilities into a label, decided labels, and their form.

`decision` reads the options, `bind` checks them against the labels of a model. The order is:
temperature, merged labels, then the rest.

Owns: decisions.
Thread: any; pure.
Must not import: anything of worker but errors, settings and core.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field
from typing import Final, NamedTuple

from worker.core.decisions.members import MergedLabels, listed, merged
from worker.core.decisions.temperature import softened
from worker.core.records import Activation, ModelCard
from worker.errors import SettingsError
from worker.settings import DecisionSettings
from worker.settings.decision import UNCERTAIN
from worker.settings.table import Pairs

USUAL_THRESHOLD: Final = 0.5  # of a label that a table of thresholds lacks
_DIGEST_CHARACTERS: Final = 16
_UNNAMED: Final = re.compile(r"LABEL_\d+")


class Verdict(NamedTuple):
    """The decision on one text.

    Attributes:
        label: the most probable label, or the uncertain one.
        score: probability of the most probable label.
        margin: its lead over the next one; its probability, if there is no other label.
        decided: labels that reach their thresholds, in the order of the labels.
    """

    label: str
    score: float
    margin: float
    decided: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """The options of a decision, before the labels are known.

    Attributes:
        path: of the settings, for messages.
        names: the model's label -> its new name.
        thresholds: one number, or one by label; None for no decided labels.
        others: as the option of the same name.
    """

    names: Mapping[str, str] = field(default_factory=Pairs)
    temperature: float | None = None
    thresholds: float | Mapping[str, float] | None = None
    min_score: float | None = None
    min_margin: float | None = None
    uncertain_label: str = UNCERTAIN
    top_k: int | None = None
    digits: int | None = None
    path: str = "decision"

    @property
    def may_be_uncertain(self) -> bool:
        """True if a result may have the uncertain label."""
        return self.min_score is not None or self.min_margin is not None


def decision(settings: DecisionSettings, path: str = "decision") -> Decision | None:
    """Return the decision that the settings ask for, or None if every option is at its default."""
    if not settings.is_on:
        return None
    return Decision(
        settings.labels,
        settings.temperature,
        settings.threshold,
        settings.min_score,
        settings.min_margin,
        settings.uncertain_label or UNCERTAIN,
        settings.top_k,
        settings.digits,
        path,
    )


@dataclass(frozen=True, slots=True)
class BoundDecision:
    """A decision on the probabilities of one model.

    Attributes:
        decision: its options.
        merged: the labels.
        thresholds: of each label, in their order; None for no decided labels.
        digest: of all that changes a result.
    """

    decision: Decision
    merged: MergedLabels
    thresholds: tuple[float, ...] | None
    digest: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels of the results, in their order."""
        return self.merged.names

    @property
    def temperature(self) -> float | None:
        """The temperature of the probabilities, if one is set."""
        return self.decision.temperature

    def probabilities(self, raw: tuple[float, ...]) -> tuple[float, ...]:
        """Return the probabilities of the labels.

        Args:
            raw: of the model's labels, in its order.
        """
        if self.decision.temperature is not None:
            raw = softened(raw, self.decision.temperature, exclusive=self.merged.exclusive)
        return self.merged.probabilities(raw)

    def decide(self, p: Sequence[float]) -> Verdict:
        """Return the decision on a text.

        Args:
            p: probabilities of the labels, as `probabilities` returns them.
        """
        label, score, margin, _ = most_probable(self.labels, p)
        d = self.decision
        uncertain = score < (d.min_score or 0.0) or margin < (d.min_margin or 0.0)
        pairs = zip(self.labels, p, self.thresholds or (), strict=self.thresholds is not None)
        decided = tuple(name for name, one, least in pairs if one >= least)
        return Verdict(d.uncertain_label if uncertain else label, score, margin, decided)

    def shown(self, p: Sequence[float]) -> list[tuple[str, float]]:
        """Return the labels that a result has, with their probabilities as it has them."""
        pairs = list(zip(self.labels, p, strict=True))
        if self.decision.top_k is not None:
            pairs = sorted(pairs, key=lambda pair: -pair[1])[: self.decision.top_k]
        return [(label, self.rounded(one)) for label, one in pairs]

    def rounded(self, probability: float) -> float:
        """Return a probability with the decimal places that a result has."""
        digits = self.decision.digits
        return probability if digits is None else round(probability, digits)


def most_probable(labels: Sequence[str], p: Sequence[float]) -> Verdict:
    """Return the verdict without any rule: the most probable label."""
    score = max(p)
    best = p.index(score)
    others = (one for index, one in enumerate(p) if index != best)
    return Verdict(labels[best], score, score - max(others, default=0.0))


def verdict(card: ModelCard, p: Sequence[float]) -> Verdict:
    """Return what the model's decision says of a text, if it has one; else the most probable label.

    Args:
        card: of the model.
        p: probabilities of its labels.
    """
    return most_probable(card.labels, p) if card.decision is None else card.decision.decide(p)


def result_labels(card: ModelCard) -> tuple[str, ...]:
    """Return every label that a result of the model may have."""
    rule = card.decision.decision if card.decision else None
    more = (rule.uncertain_label,) if rule and rule.may_be_uncertain else ()
    return (*card.labels, *more)


def decidable_labels(card: ModelCard) -> tuple[str, ...]:
    """Return the labels that have a threshold."""
    return card.labels if card.decision and card.decision.thresholds is not None else ()


def bind(decision: Decision, labels: Sequence[str], activation: Activation) -> BoundDecision:
    """Return the decision on a model's probabilities.

    Args:
        decision: the options.
        labels: of the model, in the order of its outputs.
        activation: that turns its outputs into probabilities.

    Raises:
        SettingsError: the options do not fit the model.
    """
    found = merged(labels, decision.names, activation, decision.path)
    _check(decision, found, activation)
    return BoundDecision(decision, found, _thresholds(decision, found), _digest(decision, found))


def _thresholds(decision: Decision, found: MergedLabels) -> tuple[float, ...] | None:
    given, path = decision.thresholds, f"{decision.path}.threshold"
    if given is None or isinstance(given, float):
        return None if given is None else (given,) * len(found.names)
    for label in given:
        if label not in found.names:
            renamed = decision.names.get(label)
            why = f"{decision.path}.labels renames it to {renamed!r}" if renamed else None
            raise SettingsError(
                f"{path} names {label!r}, which is no label of a result: "
                f"{why or listed(found.names)}"
            )
    return tuple(given.get(label, USUAL_THRESHOLD) for label in found.names)


def _check(d: Decision, found: MergedLabels, activation: Activation) -> None:
    """Raise SettingsError for what has no effect, or no meaning, with these labels."""
    count = len(found.names)
    if d.may_be_uncertain and d.uncertain_label in found.names:
        raise SettingsError(
            f"{d.path}.uncertain_label = {d.uncertain_label!r} is a label of the model too: choose "
            "another name"
        )
    if d.top_k is not None and d.top_k > count:
        raise SettingsError(f"{d.path}.top_k = {d.top_k} is more than the {count} labels")
    if d.temperature is not None and activation == "none":
        raise SettingsError(
            f"{d.path}.temperature divides the outputs of a model, and with model.activation = "
            "'none' they are probabilities already: leave it out"
        )
    if d.min_margin is not None and activation == "sigmoid":
        raise SettingsError(
            f"{d.path}.min_margin compares labels that exclude each other, and those of this model "
            f"are independent: use {d.path}.threshold or {d.path}.min_score"
        )
    if d.min_score is not None and activation == "softmax" and d.min_score * count <= 1:
        raise SettingsError(
            f"{d.path}.min_score = {d.min_score:g} has no effect: the most probable of {count} labels "
            f"always reaches {1 / count:.3g}"
        )


def _digest(d: Decision, found: MergedLabels) -> str:
    """Return 16 hexadecimal digits that differ for decisions whose results may differ."""
    options = (d.temperature, d.thresholds, d.min_score, d.min_margin, d.top_k, d.digits)
    facts = json.dumps([options, d.uncertain_label, astuple(found)], sort_keys=True)
    return hashlib.sha256(facts.encode()).hexdigest()[:_DIGEST_CHARACTERS]


def unnamed_hint(labels: Sequence[str], path: str = "decision") -> tuple[str, ...]:
    """Return advice if a model's labels are LABEL_0, LABEL_1 and so on, which say nothing."""
    if not labels or not all(_UNNAMED.fullmatch(label) for label in labels):
        return ()
    shown = ", ".join(labels[:3]) + (" ..." if len(labels) > 3 else "")
    hint = (
        f"the model calls its labels {shown}: name them by {path}.labels, such as "
        f'{{ {labels[0]} = "negative" }}; the page of the model tells what they mean'
    )
    return (hint,)
