"""Runs the tokenizer and the model on texts, so that a text that fails fails alone.

Owns: the retries that isolate a failing text, and the memory budget of forward passes.
Thread: `tokenise` runs on the tokenise thread, `ForwardPasses` on the infer thread; a command runs
    both on its own.
Must not import: kafka, torch.

Forward passes are as large as memory allows, and are split where one fails.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, NoReturn

from worker import timeline
from worker.core.budget import ForwardBudget
from worker.core.decisions.whole_texts import whole_texts
from worker.core.faults import Disposition, Failed, disposition, isolate
from worker.core.model import Classifier, PreparesTexts, Step, Tokeniser
from worker.core.records import ModelInput, Prediction
from worker.errors import OutOfMemory
from worker.logs import get_logger
from worker.metrics import Metrics

log = get_logger(__name__)


def tokenise(
    tokeniser: Tokeniser, texts: Sequence[str], step: Step
) -> tuple[list[ModelInput], dict[int, Failed]]:
    """Return the texts cut into passes, and the texts that the tokenizer failed on, by position.

    Args:
        tokeniser: of the model.
        texts: at least one.
        step: called before each call of the tokenizer, and during a long text.

    Raises:
        Exception: an error that no text caused stops the worker (`core.faults.disposition`).
    """
    if isinstance(tokeniser, PreparesTexts):
        return _prepared(tokeniser, texts, step)
    try:
        step()
        return tokeniser.tokenise(texts, step), {}
    except Exception as error:
        if disposition(error, records=len(texts)) is Disposition.STOP:
            raise

    def tokenise_alone(position: int) -> list[ModelInput]:
        step()
        inputs = tokeniser.tokenise([texts[position]], step)
        return [replace(cut, positions=(position,) * len(cut.positions)) for cut in inputs]

    # At least one text breaks the tokenizer. Each is tried alone, to find which.
    results = isolate(
        range(len(texts)), lambda positions: [tokenise_alone(position) for position in positions]
    )
    inputs: list[ModelInput] = []
    failed: dict[int, Failed] = {}
    for position, result in enumerate(results):
        if isinstance(result, Failed):
            failed[position] = result
        else:
            inputs += result
    return inputs, failed


def _prepared(
    tokeniser: PreparesTexts, texts: Sequence[str], step: Step
) -> tuple[list[ModelInput], dict[int, Failed]]:
    """Tokenise the texts that can be prepared; the others have failed, or are skipped."""
    ready: dict[int, str] = {}
    failed: dict[int, Failed] = {}
    for position, text in enumerate(tokeniser.prepare(texts, step)):
        if isinstance(text, str):
            ready[position] = text
        else:
            failed[position] = Failed(text, attempts=1)
    if not ready:
        return [], failed
    inputs, unread = tokenise(tokeniser.plain, [*ready.values()], step)
    places = [*ready]
    failed |= {places[position]: failure for position, failure in unread.items()}
    moved = [replace(one, positions=tuple(places[p] for p in one.positions)) for one in inputs]
    return moved, failed


class _Begun(NamedTuple):
    """A forward pass that has begun, and the function that waits for its predictions."""

    model_input: ModelInput
    wait: Callable[[], list[Prediction]]

    @property
    def positions(self) -> tuple[int, ...]:
        return self.model_input.positions


class ForwardPasses:
    """Runs texts through the model within a memory budget, and updates the budget.

    A pass begins before the one before it is finished, so that a GPU does not wait for the CPU.

    Args:
        classifier: the model.
        budget: bounds the size of a pass.
        metrics: tokens and padding of each pass, and the budget.
    """

    def __init__(self, classifier: Classifier, budget: ForwardBudget, metrics: Metrics) -> None:
        self._classifier, self._budget, self._metrics = classifier, budget, metrics
        metrics.forward_tokens.set(budget.tokens)

    def run(self, model_input: ModelInput, step: Step) -> Iterator[tuple[int, Prediction | Failed]]:
        """Return each text's position and its prediction or failure. Passes run lazily.

        Args:
            model_input: any number of texts, with all windows of each.
            step: called before each pass.

        Raises:
            Exception: an error that no text caused stops the worker (`core.faults.disposition`).
        """
        rows = self._rows(model_input, step)
        return whole_texts(rows, model_input, self._classifier.card)

    def _rows(
        self, model_input: ModelInput, step: Step
    ) -> Iterator[tuple[int, Prediction | Failed]]:
        begun: _Begun | None = None
        for part in self._budget.cut(model_input):
            step()
            previous, begun = begun, self._begin(part)
            if previous:
                yield from zip(previous.positions, self._finish(previous, step), strict=True)
        if begun:
            yield from zip(begun.positions, self._finish(begun, step), strict=True)

    def _begin(self, model_input: ModelInput) -> _Begun:
        """Begin a pass. `_finish` raises the errors."""
        self._metrics.batch_tokens.observe(model_input.tokens)
        self._metrics.padding.observe(1 - model_input.tokens / self._budget.cost(model_input))
        try:
            with timeline.span("pass", texts=len(model_input.ids), tokens=model_input.tokens):
                wait = self._classifier.begin(model_input)
        except Exception as error:  # noqa: BLE001 - raised again
            wait = partial(_raise, error)
        return _Begun(model_input, wait)

    def _finish(self, begun: _Begun, step: Step) -> Sequence[Prediction | Failed]:
        """Return the results of a pass; if it failed, run as many smaller ones as needed."""
        model_input = begun.model_input
        first_try = [begun.wait]
        costs_that_fit: list[int] = []
        ran_out = False

        def run(rows: Sequence[int]) -> list[Prediction]:
            nonlocal ran_out
            part = model_input.take(rows)
            try:
                if first_try:
                    with timeline.span("wait", texts=len(rows)):
                        predictions = first_try.pop()()
                else:
                    step()
                    with timeline.span("pass", texts=len(rows), tokens=part.tokens):
                        predictions = self._classifier.predict(part)
            except OutOfMemory:
                ran_out = True
                raise
            costs_that_fit.append(self._budget.cost(part))
            return predictions

        results = isolate(range(len(model_input.ids)), run)
        self._update_budget(max(costs_that_fit, default=0), results, ran_out=ran_out)
        return results

    def _update_budget(
        self, largest: int, results: Sequence[Prediction | Failed], *, ran_out: bool
    ) -> None:
        """Remember the largest pass that fits, and log a change."""
        before = self._budget.tokens
        if not ran_out:
            self._budget.fitted(largest)
        elif largest and not any(_does_not_fit(result) for result in results):
            # Otherwise a single text does not fit, which says nothing about passes without it.
            self._budget.ran_out(largest)
        now = self._budget.tokens
        if now < before:
            log.warning("out of memory, using smaller forward passes", tokens=now, before=before)
        elif now > before:
            log.info("trying larger forward passes again", tokens=now, before=before)
        self._metrics.forward_tokens.set(now)


def _does_not_fit(result: Prediction | Failed) -> bool:
    return isinstance(result, Failed) and isinstance(result.error, OutOfMemory)


def _raise(error: Exception) -> NoReturn:
    raise error
