"""What the worker asks of a model; `worker.inference` offers it. Protocols alone: no torch here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from worker.core.records import ModelCard, ModelInput, Prediction


class Tokeniser(Protocol):
    """Texts to token ids. Called by one thread."""

    def tokenise(self, texts: Sequence[str]) -> list[ModelInput]:
        """Forward passes that hold each text once; their positions index `texts`."""
        ...  # pragma: no cover - a protocol


class Classifier(Protocol):
    """Token ids to probabilities. Called by one thread, the sole caller of torch."""

    @property
    def card(self) -> ModelCard:
        """What runs."""
        ...  # pragma: no cover - a protocol

    def warm_up(self) -> None:
        """Label a short text and a longest one, so that no record pays for a first time.

        Raises:
            ModelUnavailable: the model fails on plain texts.
        """
        ...  # pragma: no cover - a protocol

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """Label the texts of one forward pass.

        Returns:
            One prediction for each of `model_input.ids`, in their order.

        Raises:
            OutOfMemory: the pass does not fit; a smaller one may.
            Exception: whatever else the engine raises (a number that is none); it speaks of the
                pass as a whole, and the caller finds the culprit by halving.
        """
        ...  # pragma: no cover - a protocol
