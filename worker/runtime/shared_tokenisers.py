"""Tokenises a micro-batch once for several models whose tokenizers give the same ids.

Owns: the texts that were tokenised last, and their ids.
Thread: tokenise.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from worker.core.model import PreparesTexts, Step, Tokeniser, no_step
from worker.core.records import ModelInput


class SharedTokenisers:
    """Finds models that can share a tokenizer: those whose tokenisers have the same `key`."""

    def __init__(self) -> None:
        self._by_key: dict[Hashable, SharedTokeniser] = {}

    def of(self, tokeniser: Tokeniser) -> Tokeniser:
        """Return the tokeniser to use for a model in place of its own.

        Each model prepares its texts itself; those that are equal then are tokenised once.
        """
        if isinstance(tokeniser, PreparesTexts):
            tokeniser.plain = self.of(tokeniser.plain)
            return tokeniser
        if isinstance(tokeniser, SharedTokeniser):  # of a model that stays at a reload
            tokeniser = tokeniser.inner
        key: Hashable = getattr(tokeniser, "key", None)
        if key is None:
            return tokeniser
        return self._by_key.setdefault(key, SharedTokeniser(tokeniser))


class SharedTokeniser:
    """Remembers the ids of the last texts, for the next model that has the same texts.

    Args:
        inner: the tokeniser of one of the models.

    Attributes:
        inner: as given.
    """

    def __init__(self, inner: Tokeniser) -> None:
        self.inner = inner
        self._texts: list[str] = []
        self._inputs: list[ModelInput] = []

    def tokenise(self, texts: Sequence[str], step: Step = no_step) -> list[ModelInput]:
        """Return the ids of the texts; see `Tokeniser.tokenise`."""
        wanted = list(texts)
        if wanted != self._texts:
            self._inputs = self.inner.tokenise(wanted, step)
            self._texts = wanted
        return self._inputs
