"""What an engine offers to the infer stage, whatever runs beneath it.

Owns the protocol alone. Must not import torch, so that the runtime may.
"""

from __future__ import annotations

from typing import Protocol

from worker.core.records import ModelCard, ModelInput, Prediction


class Classifier(Protocol):
    """A loaded model. One thread at a time may call it: the infer thread, once it runs."""

    card: ModelCard

    def warm_up(self) -> None:
        """Label a short text and one of the greatest length, so that no record pays for a first time.

        Raises:
            ModelUnavailable: the model fails on plain texts.
        """
        ...

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """Label the texts of one forward pass.

        Returns:
            One prediction for each of `model_input.ids`, in their order.

        Raises:
            Exception: whatever the engine raises (out of memory, a number that is none, ...); it
                speaks of the pass as a whole, and the caller finds the culprit by halving.
        """
        ...
