"""Gives each record of a micro-batch its outcome: the work of the tokenise and infer stages.

Owns: the way of a text through tokenizer, cache and model; exactly one outcome for each record.
Thread: `tokenise` runs on the tokenise thread, `infer` on the infer thread.
Must not import: kafka, torch.

A text that occurs twice in a micro-batch is tokenised and run once, and each of its records gets
the outcome. If the text fails, each of its records becomes a dead letter, and the circuit breaker
counts each. A text from an earlier micro-batch is answered from the cache, if there is one; only
the infer thread reads and fills the cache.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Self

from schemas.dead_letter import DeadLetterReason
from worker.core.budget import ForwardBudget
from worker.core.cache import PredictionCache
from worker.core.faults import CircuitBreaker, Failed
from worker.core.model import Classifier, PreparesTexts, Step, Tokeniser
from worker.core.records import (
    Classified,
    DeadLettered,
    InvalidRecord,
    MicroBatch,
    ModelInput,
    Outcome,
    Prediction,
    WorkItem,
)
from worker.metrics import Metrics, observe_all
from worker.runtime.forward import ForwardPasses, tokenise
from worker.runtime.tokenised_batch import TextRow, TokenisedBatch, take
from worker.runtime.unread import dead_letter, same_outcome, too_long, unread

# The model is at fault, or the own function, and not the record.
_MODEL_AT_FAULT = frozenset({DeadLetterReason.TOKENISER_FAILED, DeadLetterReason.MODEL_FAILED})
_FUNCTION_AT_FAULT = frozenset({DeadLetterReason.PREPARE_FAILED})


class Labeller:
    """Gives every record of a micro-batch its outcome, with one model.

    Args:
        tokeniser, classifier: the model.
        refuse_long: if true, a text of too many tokens becomes a dead letter; otherwise it is
            truncated.
        breaker: counts, in poll order, the texts that the model labelled and those it failed on.
        budget: bounds the size of a forward pass.
        metrics: token counts and padding.
        cache: this model's predictions for earlier texts; None keeps none.
        skips: whether the own function may skip a text; otherwise that is a dead letter.

    Attributes:
        card: of the model; outcomes have it.
        tokeniser, classifier: the model.
    """

    def __init__(
        self,
        tokeniser: Tokeniser,
        classifier: Classifier,
        *,
        refuse_long: bool,
        breaker: CircuitBreaker,
        budget: ForwardBudget,
        metrics: Metrics,
        cache: PredictionCache | None = None,
        skips: bool = False,
    ) -> None:
        self.card, self.tokeniser, self.classifier = classifier.card, tokeniser, classifier
        self._cache = cache
        self._passes = ForwardPasses(classifier, budget, metrics)
        self._refuse_long, self._skips = refuse_long, skips
        self._breaker, self._metrics = breaker, metrics
        # A skip shows that the own function works, and nothing about the model.
        apart = skips and isinstance(tokeniser, PreparesTexts)
        self._function_breaker = breaker.twin() if apart else None
        self._at_fault = _MODEL_AT_FAULT if apart else _MODEL_AT_FAULT | _FUNCTION_AT_FAULT

    @classmethod
    def beside(cls, tokeniser: Tokeniser, classifier: Classifier, *, refuse_long: bool) -> Self:
        """Return a labeller for texts beside the records, with metrics of its own and no cache.

        Args:
            tokeniser: of the model.
            classifier: the model.
            refuse_long: as of a labeller of records.
        """
        card = classifier.card
        return cls(
            tokeniser,
            classifier,
            refuse_long=refuse_long,
            breaker=CircuitBreaker(sys.maxsize, 1.0),
            budget=ForwardBudget(card.forward_tokens, pads=card.pads),
            metrics=Metrics(),
            skips=True,
        )

    def aside(self) -> Labeller:
        """Return a labeller with the same model for a text beside the records."""
        return Labeller.beside(self.tokeniser, self.classifier, refuse_long=self._refuse_long)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cached predictions."""
        return self._cache.size if self._cache is not None else 0

    def tokenise(self, batch: MicroBatch, step: Step) -> TokenisedBatch:
        """Cut a micro-batch into forward passes. Unreadable records get their outcome here.

        Args:
            batch: the micro-batch.
            step: called before each call of the tokenizer.
        """
        rows = tuple(self._rows(batch))
        texts = tuple(row for row in rows if isinstance(row, TextRow) and row.repeat_of is None)
        inputs = tuple(self._inputs(texts, step)) if texts else ()
        return TokenisedBatch(batch.tokens, rows, texts, inputs, self)

    def _rows(self, batch: MicroBatch) -> Iterator[TextRow | DeadLettered]:
        first_rows: dict[str, TextRow] = {}
        for entry in batch.entries:
            if isinstance(entry, InvalidRecord):
                yield DeadLettered(entry.record, entry.reason, entry.message)
            elif first := first_rows.get(entry.text):
                yield TextRow(entry, repeat_of=first)
            else:
                key = self._cache.key(entry.text) if self._cache is not None else None
                first_rows[entry.text] = row = TextRow(entry, key=key)
                yield row

    def _inputs(self, texts: Sequence[TextRow], step: Step) -> Iterator[ModelInput]:
        """Tokenise the texts; those that fail or are too long get their outcome."""
        inputs, failed = tokenise(self.tokeniser, [row.item.text for row in texts], step)
        for position, failure in failed.items():
            row = texts[position]
            row.outcome = unread(row.item, failure, self.card, skips=self._skips)
        for model_input in inputs:
            if self.card.windows:
                windows = Counter(model_input.positions).values()
                observe_all(self._metrics.text_windows, [*windows])
            if kept := self._without_long(model_input, texts):
                yield kept

    def _without_long(self, model_input: ModelInput, texts: Sequence[TextRow]) -> ModelInput | None:
        """Turn texts that are too long into dead letters, if so set; return the rest, if any."""
        if not self._refuse_long:
            return model_input
        for position, truncated in zip(model_input.positions, model_input.truncated, strict=True):
            if truncated:
                texts[position].outcome = too_long(texts[position].item, self.card)
        return take(model_input, [not truncated for truncated in model_input.truncated])

    def infer(self, batch: TokenisedBatch, step: Step) -> list[Outcome]:
        """Run the model, and return one outcome for each record, in poll order.

        Args:
            batch: the micro-batch.
            step: called before each forward pass.

        Raises:
            CircuitOpen: too many records failed.
        """
        self._recall(batch)
        for model_input in batch.not_from_cache():
            for position, result in self._passes.run(model_input, step):
                row = batch.texts[position]
                row.outcome = self._outcome(row.item, result)
        self._remember(batch.texts)
        readable = [row for row in batch.rows if isinstance(row, TextRow)]
        for repeat in readable:
            if repeat.repeat_of is not None:
                repeat.outcome = same_outcome(repeat.item, repeat.repeat_of.final())
        self._judge(readable)
        return [row if isinstance(row, DeadLettered) else row.final() for row in batch.rows]

    def _outcome(self, item: WorkItem, result: Prediction | Failed) -> Outcome:
        if isinstance(result, Failed):
            return dead_letter(item, result, DeadLetterReason.MODEL_FAILED, self.card)
        return Classified(item, result, self.card)

    def _recall(self, batch: TokenisedBatch) -> None:
        """Give the texts that the cache knows their outcome."""
        positions: Iterable[int] = [p for inputs in batch.inputs for p in inputs.positions]
        if self.card.windows:
            positions = dict.fromkeys(positions)  # several windows of a text have its position
        rows = [batch.texts[position] for position in positions]
        hits = 0
        if self._cache is not None:
            for row in rows:
                if row.key is not None and (prediction := self._cache.get(row.key)):
                    row.outcome, row.from_cache = self._outcome(row.item, prediction), True
                    hits += 1
        repeats = sum(isinstance(row, TextRow) and row.repeat_of is not None for row in batch.rows)
        self._metrics.cache_hits.labels("batch").inc(repeats)
        self._metrics.cache_hits.labels("cache").inc(hits)
        self._metrics.cache_misses.inc(len(rows) - hits)

    def _remember(self, texts: Iterable[TextRow]) -> None:
        """Cache the predictions. Failures are not cached, because they may pass."""
        if self._cache is None:
            return
        for row in texts:
            if row.key is not None and isinstance(row.outcome, Classified):
                self._cache.put(row.key, row.outcome.prediction)
        self._metrics.cache_bytes.set(self._cache.size)

    def _judge(self, rows: Sequence[TextRow]) -> None:
        """Let the breaker count the texts that were labelled and those that failed.

        A text from the cache is not counted: it shows nothing about the model as it is now, and
        must not hide one that fails on every text between.
        """
        for row in rows:
            outcome = row.final()
            if (row.repeat_of or row).from_cache:
                continue
            if isinstance(outcome, Classified):
                self._breaker.note(failed=False)
            elif outcome.reason in self._at_fault:
                self._breaker.note(failed=True)
        if self._function_breaker:
            for row in rows:
                failed = getattr(row.outcome, "reason", None) in _FUNCTION_AT_FAULT
                self._function_breaker.note(failed=failed)
