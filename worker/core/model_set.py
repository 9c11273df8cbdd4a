"""Several models together, as the parts of the worker see them that know one.

A set has the interface of one model: its card has the identity of all, and it labels as the first
model of the settings does. The page's question and the warnings at start need no more than that.

Owns: `ModelSet`, and the identity of a set.
Thread: as `core.model` states for a tokeniser and a classifier.
Must not import: torch, transformers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from worker.core.decisions.members import listed
from worker.core.decisions.rules import result_labels
from worker.core.model import Classifier, Step, Tokeniser, no_step
from worker.core.records import ModelCard, ModelInput, Prediction
from worker.errors import SettingsError
from worker.settings import ModelPlan

_SET: Final = "set"  # the revision of several models


@dataclass(frozen=True, slots=True)
class SetMember:
    """One of several models.

    Attributes:
        plan: its settings; it has a name.
        tokeniser, classifier: the model.
    """

    plan: ModelPlan
    tokeniser: Tokeniser
    classifier: Classifier

    @property
    def name(self) -> str:
        """The name of the model in settings and results."""
        return self.plan.name or ""

    @property
    def card(self) -> ModelCard:
        """The facts of the model."""
        return self.classifier.card


class ModelSet:
    """Several models.

    Args:
        members: the models in the order of the settings, at least one.

    Raises:
        SettingsError: a model waits for a label that the model it names does not give.

    Attributes:
        members: as given.
        card: of the set: the names and the digest of all, otherwise the facts of the first. Names
            and digest do not depend on the order, so that neither do the ids of results.
    """

    def __init__(self, members: Sequence[SetMember]) -> None:
        self.members = tuple(members)
        _require_labels(self.members)
        self.card = _card(self.members)

    def tokenise(self, texts: Sequence[str], step: Step = no_step) -> list[ModelInput]:
        """Tokenise texts for the first model."""
        return self.members[0].tokeniser.tokenise(texts, step)

    def warm_up(self) -> None:
        """Warm up each model."""
        for member in self.members:
            member.classifier.warm_up()

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """Label texts with the first model."""
        return self.members[0].classifier.predict(model_input)

    def begin(self, model_input: ModelInput) -> Callable[[], list[Prediction]]:
        """Begin to label texts with the first model."""
        return self.members[0].classifier.begin(model_input)


def _require_labels(members: Sequence[SetMember]) -> None:
    """Raise a SettingsError if a `when` has a label that the other model never gives."""
    cards = {member.name: member.card for member in members}
    for member in members:
        when = member.plan.when
        if when is None or when.model is None:
            continue
        labels = result_labels(cards[when.model])
        if missing := next((label for label in when.label if label not in labels), None):
            raise SettingsError(
                f"models.{member.name}.when has label = {missing!r}, which is no label of "
                f"models.{when.model}: {listed(labels)}"
            )


def _card(members: Sequence[SetMember]) -> ModelCard:
    cards = tuple((member.name, member.card) for member in members)
    by_name = sorted(members, key=lambda one: one.name)  # unique
    facts = "".join(map(_facts, by_name))
    return replace(
        cards[0][1],
        name="+".join(member.name for member in by_name),
        revision=_SET,
        weights_sha256=hashlib.sha256(facts.encode()).hexdigest(),
        decision=None,
        recipe=None,
        windows=None,
        members=cards,
    )


def _facts(member: SetMember) -> str:
    """Return a line of all that decides what a member adds to the result of a record."""
    plan = member.plan
    facts = [f"{member.name}={member.card.identity}"]
    if plan.when:
        facts.append(f"when={plan.when.model_dump_json()}")
    if not plan.required:
        facts.append("not required")
    return " ".join(facts) + "\n"
