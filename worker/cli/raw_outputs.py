"""A model as `streamlabel calibrate` needs it: its outputs before a temperature is applied.

Owns: the model, and how a worker turns its output into probabilities at another temperature.
Thread: main.
Must not import: torch or transformers, until a model is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from worker.core.budget import ForwardBudget
from worker.core.decisions.rules import BoundDecision, Decision, bind
from worker.core.decisions.treatment import treatment
from worker.core.decisions.windows import combined
from worker.core.faults import Failed
from worker.core.model import Classifier
from worker.errors import StreamlabelError
from worker.metrics import Metrics
from worker.settings import Settings


class RawWindow(NamedTuple):
    """The output of the model for one window of a text: probabilities, and its tokens."""

    probabilities: tuple[float, ...]
    tokens: int


class _Rows:
    """A classifier whose windows are rows of their own: they are not combined here."""

    def __init__(self, classifier: Classifier) -> None:
        self.card = replace(classifier.card, windows=None)
        self.predict, self.begin = classifier.predict, classifier.begin
        self.warm_up = classifier.warm_up


class RawModel:
    """Labels texts without a temperature, and applies one to what it returned.

    A worker divides the outputs of each window by the temperature, and combines the windows then.
    So a text's output is that of its windows: one, unless long texts are read in windows.

    Args:
        settings: name the model, its labels, and how it reads texts.

    Attributes:
        name: of the model.
        labels: new names of its labels, in the order of the probabilities.
        independent: whether each label has a probability of its own.

    Raises:
        StreamlabelError: the model can't be loaded, or returns probabilities of which it is not
            known how it made them.
    """

    def __init__(self, settings: Settings) -> None:
        from worker.inference.warm import load
        from worker.runtime.forward import ForwardPasses

        raw = replace(treatment(settings), decision=None)
        self._tokeniser, classifier = load(
            settings.model, settings.batch.forward_tokens, treatment=raw
        )
        card = classifier.card
        if card.activation == "none":
            raise StreamlabelError(
                "model.activation = 'none': a temperature divides outputs before they become "
                "probabilities, and those of this model are probabilities already"
            )
        self._plan, self.name = raw.windows, card.name
        self.independent = card.activation == "sigmoid"
        decision = Decision(names=settings.decision.labels)
        self._bound = bind(decision, card.labels, card.activation)
        self.labels = self._bound.labels
        budget = ForwardBudget(card.forward_tokens, pads=card.pads)
        self._passes = ForwardPasses(_Rows(classifier), budget, Metrics())
        self._at = lru_cache(maxsize=1)(self._with_temperature)

    def label(self, texts: Sequence[str]) -> list[tuple[RawWindow, ...] | str]:
        """Return the output of each text, or why it has none."""
        from worker.runtime.forward import tokenise

        inputs, failed = tokenise(self._tokeniser, texts, lambda: None)
        why = {position: f"{failure.error}" for position, failure in failed.items()}
        windows: dict[int, list[RawWindow]] = {}
        for model_input in inputs:
            for position, result in self._passes.run(model_input, lambda: None):
                if isinstance(result, Failed):
                    why[position] = f"{result.error}"
                else:
                    window = RawWindow(result.probabilities, result.token_count)
                    windows.setdefault(position, []).append(window)
        return [why.get(n) or tuple(windows[n]) for n in range(len(texts))]

    def rescale(self, output: tuple[RawWindow, ...], temperature: float) -> tuple[float, ...]:
        """Return the probabilities of the labels that a worker with this temperature states."""
        bound = self._at(temperature)
        rows = [bound.probabilities(window.probabilities) for window in output]
        if self._plan is None:
            return rows[0]
        tokens = [window.tokens for window in output]
        return combined(self._plan, rows, tokens, sums_to_one=not self.independent)

    def _with_temperature(self, temperature: float) -> BoundDecision:
        return replace(self._bound, decision=replace(self._bound.decision, temperature=temperature))
