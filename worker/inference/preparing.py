"""Prepares each text before a model's tokenizer reads it.

Owns: the preparation of one model's texts, and its time.
Thread: tokenise; `preparation_of` runs on the thread that loads the model.
Must not import: torch, transformers.
"""

from __future__ import annotations

from collections.abc import Sequence

from worker.clock import Clock, SystemClock
from worker.core.decisions.prepare import Preparation, preparation
from worker.core.model import PreparesTexts, Spent, Step, Tokeniser, no_step
from worker.core.records import ModelInput
from worker.errors import RecordRejected, TextSkipped
from worker.inference.own_functions import own_function
from worker.settings import PrepareSettings


class PreparingTokeniser(PreparesTexts):
    """A tokeniser that reads texts after their preparation.

    Args:
        plain: reads the prepared texts.
        preparation: of each text.
        clock: measures its time; default: the machine's.

    Attributes:
        plain: reads the prepared texts.
        spent: called with the seconds of each preparation of texts.
    """

    def __init__(
        self, plain: Tokeniser, preparation: Preparation, clock: Clock | None = None
    ) -> None:
        self.plain, self._preparation = plain, preparation
        self._clock = clock or SystemClock()
        self.spent: Spent = _uncounted

    def prepare(
        self, texts: Sequence[str], step: Step = no_step, /
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
        self.spent(self._clock.monotonic() - began)
        return prepared

    def _prepared(self, text: str) -> str | RecordRejected | TextSkipped:
        try:
            prepared = self._preparation.apply(text)
        except RecordRejected as error:
            return error
        return TextSkipped("prepare.function skips this text") if prepared is None else prepared

    def tokenise(self, texts: Sequence[str], step: Step = no_step, /) -> list[ModelInput]:
        """Prepare and tokenise texts.

        Raises:
            TextSkipped: the own function skips one of them.
            RecordRejected: one can't be prepared, or has a token that the model doesn't know.
        """
        ready: list[str] = []
        for prepared in self.prepare(texts, step):
            if not isinstance(prepared, str):
                raise prepared
            ready.append(prepared)
        return self.plain.tokenise(ready, step)


def _uncounted(_: float) -> None:
    """Count no seconds."""


def preparation_of(settings: PrepareSettings) -> Preparation | None:
    """Return the preparation that is set, with its function imported, or None without one.

    Raises:
        SettingsError: the function or a package can't be used.
    """
    own = own_function(settings.function) if settings.function else None
    return preparation(settings, own)


def prepared(tokeniser: Tokeniser, preparation: Preparation | None) -> Tokeniser:
    """Return a tokeniser of texts that are to be prepared first, if there is anything to do."""
    if preparation is None or not preparation.changes_texts:
        return tokeniser
    return PreparingTokeniser(tokeniser, preparation)
