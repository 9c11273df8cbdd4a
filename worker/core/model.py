"""The protocols of a model, which `worker.inference` implements.

Owns: the protocols.
Thread: stated by each protocol.
Must not import: torch, transformers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from worker.core.records import ModelCard, ModelInput, Prediction
from worker.errors import RecordRejected, TextSkipped

Step = Callable[[], None]  # reports progress to health; may raise to end the work
Spent = Callable[[float], object]  # counts seconds


def no_step() -> None:
    """Report no progress."""


class Tokeniser(Protocol):
    """Turns texts into token ids. Called by one thread."""

    def tokenise(self, texts: Sequence[str], step: Step = no_step, /) -> list[ModelInput]:
        """Return inputs that contain each text once; their positions index `texts`.

        Args:
            texts: any number.
            step: called during a long text, as often as there is progress.
        """
        ...  # pragma: no cover - a protocol


class PreparesTexts(ABC):
    """A tokeniser that prepares texts first. Called by one thread.

    Attributes:
        plain: reads the prepared texts.
        spent: called with the seconds of each preparation.
    """

    plain: Tokeniser
    spent: Spent

    @abstractmethod
    def prepare(
        self, texts: Sequence[str], step: Step = no_step, /
    ) -> list[str | RecordRejected | TextSkipped]:
        """Return each text as prepared, or the reason why it gets no label."""

    @abstractmethod
    def tokenise(self, texts: Sequence[str], step: Step = no_step, /) -> list[ModelInput]:
        """See `Tokeniser.tokenise`; raises the reason of the first text without a label."""


class Classifier(Protocol):
    """Turns token ids into probabilities. Called by one thread, the sole caller of torch."""

    @property
    def card(self) -> ModelCard:
        """The facts of the model."""
        ...  # pragma: no cover - a protocol

    def warm_up(self) -> None:
        """Label texts of every length, so that no record waits for one-time costs.

        Raises:
            ModelUnavailable: the model fails on plain texts.
        """
        ...  # pragma: no cover - a protocol

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """Label the texts of one forward pass.

        Returns:
            One prediction for each of `model_input.ids`, in their order.

        Raises:
            OutOfMemory: the pass does not fit the memory; a smaller one may.
            Exception: any other error of the engine, such as an output that is not a number. It
                concerns the whole pass; the caller finds the failing record by halving.
        """
        ...  # pragma: no cover - a protocol

    def begin(self, model_input: ModelInput) -> Callable[[], list[Prediction]]:
        """Begin a forward pass, and return a function that waits for its predictions.

        While a GPU computes one pass, the CPU can begin the next. Both this method and the function
        that it returns raise the errors of `predict`.
        """
        ...  # pragma: no cover - a protocol


class Synchronous(ABC):
    """The `begin` of a classifier that computes nothing in the background."""

    @abstractmethod
    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """See `Classifier.predict`."""

    def begin(self, model_input: ModelInput) -> Callable[[], list[Prediction]]:
        """Return a function that computes the predictions."""
        return partial(self.predict, model_input)
