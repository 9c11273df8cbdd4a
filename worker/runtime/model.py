"""What the runtime asks of a model; `worker.inference` offers it. Imports core alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from worker.core.records import ModelCard, ModelInput, Prediction


class Tokeniser(Protocol):
    """Texts to token ids. Called by one thread."""

    def tokenise(self, texts: Sequence[str]) -> list[ModelInput]:
        """Forward passes that hold each text once; positions index `texts`."""
        ...


class Classifier(Protocol):
    """Token ids to probabilities. Called by one thread, the sole caller of torch."""

    @property
    def card(self) -> ModelCard:
        """What runs."""
        ...

    def warm_up(self) -> None:
        """Pay the first call's costs before any record is read."""
        ...

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """One prediction for each text, in the order of `model_input.ids`."""
        ...
