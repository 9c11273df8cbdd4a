"""A classifier whose probabilities are those of a decision: temperature and merged labels applied.

All that labels texts with it sees the decision's labels alone: worker, `classify`, page, bench,
shadow and cache.

Owns: the decided labels and probabilities of a loaded model.
Thread: infer, the sole caller of the model; built on the load thread.
Must not import: torch, transformers; it is given a classifier.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from worker.core.decisions.rules import BoundDecision
from worker.core.records import ModelCard, ModelInput, Prediction
from worker.inference.classifier import TransformersClassifier


class DecidedClassifier:
    """Labels texts with another classifier, and applies a decision to its probabilities.

    Args:
        inner: the model.
        decision: bound to the model's labels.

    Attributes:
        card: of the model, with the decision and its labels.
        memory: bytes that the process is expected to need, if known.
    """

    def __init__(self, inner: TransformersClassifier, decision: BoundDecision) -> None:
        self._inner, self._decision = inner, decision
        self.memory = inner.memory
        self.card = self._decided_card()

    def _decided_card(self) -> ModelCard:
        decision = self._decision
        return replace(self._inner.card, labels=decision.labels, decision=decision)

    def warm_up(self) -> None:
        """See `Classifier.warm_up`."""
        self._inner.warm_up()
        self.card = self._decided_card()  # the best size of a pass is known now

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """See `Classifier.predict`."""
        return self.begin(model_input)()

    def begin(self, model_input: ModelInput) -> Callable[[], list[Prediction]]:
        """See `Classifier.begin`."""
        wait, decided = self._inner.begin(model_input), self._decision.probabilities
        return lambda: [replace(one, probabilities=decided(one.probabilities)) for one in wait()]


LoadedClassifier = TransformersClassifier | DecidedClassifier
