"""Prepares each text before a model's tokenizer reads it.

Owns: the preparation of one model's texts, and its time.
Thread: tokenise; `with_preparation` runs on the thread that loads the model.
Must not import: torch, transformers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from worker.clock import Clock, SystemClock
from worker.core.decisions.prepare import Preparation, preparation
from worker.core.model import Step, Tokeniser, no_step
from worker.core.records import ModelInput
from worker.errors import RecordRejected, TextSkipped
from worker.inference.own_functions import own_function
from worker.metrics import Metrics
from worker.settings import PrepareSettings

if TYPE_CHECKING:
    from worker.inference.classifier import TransformersClassifier
    from worker.inference.tokeniser import TransformersTokeniser


class PreparingTokeniser:
    """A tokeniser that reads texts after their preparation.

    Args:
        plain: reads the prepared texts.
        preparation: of each text.
        metrics: count the seconds of the preparation.
        clock: measures them.

    Attributes:
        plain: reads the prepared texts.
    """

    def __init__(
        self, plain: Tokeniser, preparation: Preparation, metrics: Metrics, clock: Clock
    ) -> None:
        self.plain, self._preparation = plain, preparation
        self._seconds, self._clock = metrics.prepare_seconds, clock

    def prepare(
        self, texts: Sequence[str], step: Step = no_step
    ) -> list[str | RecordRejected | TextSkipped]:
        """Return each text as prepared, or the reason why it gets no label.

        Args:
            texts: any number.
            step: called before each text.
        """
        began = self._clock.monotonic()
        prepared = []
        for text in texts:
            step()
            prepared.append(self._prepared(text))
        self._seconds.inc(self._clock.monotonic() - began)
        return prepared

    def _prepared(self, text: str) -> str | RecordRejected | TextSkipped:
        try:
            prepared = self._preparation.apply(text)
        except RecordRejected as error:
            return error
        return TextSkipped("prepare.function skips this text") if prepared is None else prepared

    def tokenise(self, texts: Sequence[str], step: Step = no_step, /) -> list[ModelInput]:
        """Prepare and tokenise texts of which none fails.

        Raises:
            TextSkipped: the own function skips a text.
            RecordRejected: a text can't be prepared, or has a token that the model doesn't know.
        """
        ready: list[str] = []
        for prepared in self.prepare(texts, step):
            if not isinstance(prepared, str):
                raise prepared
            ready.append(prepared)
        return self.plain.tokenise(ready, step)


def preparation_of(settings: PrepareSettings) -> Preparation | None:
    """Return the preparation that is set, with its function imported; None if all is off.

    Raises:
        SettingsError: the function or a package can't be used.
    """
    own = own_function(settings.function) if settings.function else None
    return preparation(settings, own)


def with_preparation(
    tokeniser: TransformersTokeniser,
    classifier: TransformersClassifier,
    preparation: Preparation | None,
    metrics: Metrics,
) -> Tokeniser:
    """Return the tokeniser for texts that are to be prepared, and note that in the model's card.

    Args:
        tokeniser, classifier: the loaded model.
        preparation: of its texts; None leaves both as they are.
        metrics: count its time.
    """
    if preparation is None:
        return tokeniser
    classifier.card = replace(classifier.card, recipe=preparation.recipe)
    if preparation.reads_special_tokens:
        tokeniser.read_special_tokens()
    if not preparation.changes_texts:
        return tokeniser
    return PreparingTokeniser(tokeniser, preparation, metrics, SystemClock())
