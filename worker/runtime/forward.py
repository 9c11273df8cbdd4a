"""The tokenizer and the model on texts, one of which may fail: it alone, and not its mates.

The model's forward passes are as large as memory allows, and smaller ones where one fails. The
tokenise thread calls `tokenise`, the infer thread runs `ForwardPasses`, and a command both. Imports
core; no kafka, no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from worker.core.budget import ForwardBudget
from worker.core.faults import Disposition, Failed, disposition, isolate
from worker.core.model import Classifier, Tokeniser
from worker.core.records import ModelInput, Prediction
from worker.errors import OutOfMemory
from worker.logs import get_logger
from worker.metrics import Metrics

log = get_logger(__name__)

Step = Callable[[], None]  # tells whoever watches that the work moves; may raise to end it


def tokenise(
    tokeniser: Tokeniser, texts: Sequence[str], step: Step
) -> tuple[list[ModelInput], dict[int, Failed]]:
    """The texts cut into passes, and those that the tokenizer fails on, by their position.

    Args:
        tokeniser: the model's.
        texts: at least one.
        step: called before each call of the tokenizer.

    Raises:
        Exception: what is no text's fault stops the worker (`core.faults.disposition`).
    """
    try:
        step()
        return tokeniser.tokenise(texts), {}
    except Exception as error:
        if disposition(error, records=len(texts)) is Disposition.STOP:
            raise

    def alone(position: int) -> list[ModelInput]:
        step()
        found = tokeniser.tokenise([texts[position]])
        return [replace(one, positions=(position,) * len(one.positions)) for one in found]

    # One text breaks the tokenizer: each goes alone, and the culprit stands out.
    results = isolate(range(len(texts)), lambda some: [alone(position) for position in some])
    failed = {place: found for place, found in enumerate(results) if isinstance(found, Failed)}
    return [one for found in results if not isinstance(found, Failed) for one in found], failed


class ForwardPasses:
    """Runs texts through the model within a budget, which it teaches what fits.

    Args:
        classifier: the model.
        budget: how large a pass may be.
        metrics: tokens and padding of each pass, and the budget.
    """

    def __init__(self, classifier: Classifier, budget: ForwardBudget, metrics: Metrics) -> None:
        self._classifier, self._budget, self._metrics = classifier, budget, metrics
        metrics.forward_tokens.set(budget.tokens)

    def run(self, model_input: ModelInput, step: Step) -> Iterator[tuple[int, Prediction | Failed]]:
        """What the model says of each text, with the text's position; passes run as it is asked.

        Args:
            model_input: texts of any number.
            step: called before each pass.

        Raises:
            Exception: what is no text's fault stops the worker (`core.faults.disposition`).
        """
        for one in self._budget.cut(model_input):
            yield from zip(one.positions, self._pass(one, step), strict=True)

    def _pass(self, model_input: ModelInput, step: Step) -> Sequence[Prediction | Failed]:
        """One forward pass; where it fails, as many smaller ones as it takes."""
        self._metrics.batch_tokens.observe(model_input.tokens)
        self._metrics.padding.observe(1 - model_input.tokens / self._budget.cost(model_input))
        fits: list[int] = []
        ran_out = False

        def run(rows: Sequence[int]) -> list[Prediction]:
            nonlocal ran_out
            step()
            some = model_input.take(rows)
            try:
                predictions = self._classifier.predict(some)
            except OutOfMemory:
                ran_out = True
                raise
            fits.append(self._budget.cost(some))
            return predictions

        results = isolate(range(len(model_input.ids)), run)
        self._learn(max(fits, default=0), results, ran_out=ran_out)
        return results

    def _learn(self, fits: int, results: Sequence[Prediction | Failed], *, ran_out: bool) -> None:
        """Remember what fits one pass, and say so where that is news."""
        before = self._budget.tokens
        if not ran_out:
            self._budget.fitted(fits)
        elif fits and not any(_does_not_fit(result) for result in results):
            # Else one text is to blame: what it takes says nothing about the passes of others.
            self._budget.ran_out(fits)
        now = self._budget.tokens
        if now < before:
            log.warning("out of memory: smaller forward passes from now on", tokens=now, was=before)
        elif now > before:
            log.info("trying larger forward passes again", tokens=now, was=before)
        self._metrics.forward_tokens.set(now)


def _does_not_fit(result: Prediction | Failed) -> bool:
    return isinstance(result, Failed) and isinstance(result.error, OutOfMemory)
