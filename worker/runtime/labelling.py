"""What the tokenise and infer stages do with a micro-batch; threads are `pipeline`'s business.

Each method is called by one thread: `tokenise` by the tokenise thread, `infer` by the infer
thread. Every entry comes out with exactly one outcome. Imports core; no kafka, no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from schemas.dead_letter import DeadLetterReason
from worker.core.faults import CircuitBreaker, Disposition, Failed, disposition, isolate, stack_hash
from worker.core.model import Classifier, Tokeniser
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
from worker.metrics import Metrics

_MODEL_AT_FAULT = (DeadLetterReason.TOKENISER_FAILED, DeadLetterReason.MODEL_FAILED)


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A micro-batch cut into forward passes.

    Attributes:
        items: the entries whose text was read, by their index in the batch.
        inputs: forward passes; their positions are indexes in the batch.
        outcomes: what is known already (dead letters), by index in the batch.
    """

    size: int
    items: dict[int, WorkItem]
    inputs: list[ModelInput]
    outcomes: dict[int, Outcome]


class Labeller:
    """Gives every entry of a micro-batch its outcome.

    Args:
        tokeniser, classifier: the model.
        refuse_long: whether a text of too many tokens is a dead letter (else it is cut).
        breaker: told, in poll order, of each text's fate in the tokenizer or the model.
        metrics: token counts and padding.
    """

    def __init__(
        self,
        tokeniser: Tokeniser,
        classifier: Classifier,
        *,
        refuse_long: bool,
        breaker: CircuitBreaker,
        metrics: Metrics,
    ) -> None:
        self._tokeniser, self._classifier = tokeniser, classifier
        self._refuse_long = refuse_long
        self._breaker, self._metrics = breaker, metrics

    def tokenise(self, batch: MicroBatch) -> Tokenised:
        """Cut a micro-batch into forward passes; unreadable records have their outcome already."""
        items: dict[int, WorkItem] = {}
        outcomes: dict[int, Outcome] = {}
        for place, entry in enumerate(batch.entries):
            if isinstance(entry, InvalidRecord):
                outcomes[place] = DeadLettered(entry.record, entry.reason, entry.message)
            else:
                items[place] = entry
        tokenised = Tokenised(len(batch.entries), items, [], outcomes)
        if items:
            self._cut(tokenised)
        return tokenised

    def _cut(self, tokenised: Tokenised) -> None:
        places = list(tokenised.items)
        texts = [item.text for item in tokenised.items.values()]
        try:
            self._accept(self._tokeniser.tokenise(texts), places, tokenised)
        except Exception as error:
            if disposition(error, records=len(texts)) is Disposition.STOP:
                raise
            # One text breaks the tokenizer: each goes alone, and the culprit stands out.
            alone = isolate(texts, lambda some: [self._tokeniser.tokenise([t]) for t in some])
            for place, result in zip(places, alone, strict=True):
                if isinstance(result, Failed):
                    tokenised.outcomes[place] = _failed(
                        tokenised.items[place], result, DeadLetterReason.TOKENISER_FAILED
                    )
                else:
                    self._accept(result, [place], tokenised)

    def _accept(
        self, inputs: Iterable[ModelInput], places: Sequence[int], tokenised: Tokenised
    ) -> None:
        """Take over forward passes, their positions renamed to indexes in the batch."""
        for found in inputs:
            rows = range(len(found.ids))
            long = [row for row in rows if found.truncated[row]] if self._refuse_long else []
            for row in long:
                place = places[found.positions[row]]
                tokenised.outcomes[place] = _too_long(tokenised.items[place])
            short = [row for row in rows if row not in long]
            if short:
                tokenised.inputs.append(_take(found, short, places))

    def infer(self, tokenised: Tokenised) -> list[Outcome]:
        """Run the model; an outcome for every entry, in poll order.

        Raises:
            CircuitOpen: too many records failed.
        """
        for model_input in tokenised.inputs:
            self._metrics.batch_tokens.observe(model_input.tokens)
            self._metrics.padding.observe(1 - model_input.tokens / model_input.padded_tokens)
            for place, result in self._predict(model_input):
                tokenised.outcomes[place] = _outcome(tokenised.items[place], result)
        self._judge(tokenised)
        return [tokenised.outcomes[place] for place in range(tokenised.size)]

    def _judge(self, tokenised: Tokenised) -> None:
        """Let the breaker see the batch: texts that were labelled, and texts that failed."""
        for place in tokenised.items:
            outcome = tokenised.outcomes[place]
            if isinstance(outcome, Classified):
                self._breaker.note(failed=False)
            elif outcome.reason in _MODEL_AT_FAULT:
                self._breaker.note(failed=True)

    def _predict(self, model_input: ModelInput) -> Iterable[tuple[int, Prediction | Failed]]:
        rows = range(len(model_input.ids))

        def run(some: Sequence[int]) -> list[Prediction]:
            return self._classifier.predict(_take(model_input, some))

        return zip(model_input.positions, isolate(rows, run), strict=True)


def _take(
    model_input: ModelInput, rows: Sequence[int], places: Sequence[int] | None = None
) -> ModelInput:
    """Some rows of a forward pass; `places` renames their positions."""
    positions = [model_input.positions[row] for row in rows]
    return ModelInput(
        ids=tuple(model_input.ids[row] for row in rows),
        positions=tuple(positions if places is None else (places[p] for p in positions)),
        truncated=tuple(model_input.truncated[row] for row in rows),
    )


def _outcome(item: WorkItem, result: Prediction | Failed) -> Outcome:
    if isinstance(result, Failed):
        return _failed(item, result, DeadLetterReason.MODEL_FAILED)
    return Classified(item, result)


def _failed(item: WorkItem, failed: Failed, reason: DeadLetterReason) -> DeadLettered:
    return DeadLettered(
        item.record,
        reason,
        # The error's own words may quote the text; its type and the stack's hash do not.
        type(failed.error).__name__,
        stack_hash=stack_hash(failed.error),
        attempt=failed.attempts,
    )


def _too_long(item: WorkItem) -> DeadLettered:
    return DeadLettered(
        item.record,
        DeadLetterReason.TOO_MANY_TOKENS,
        'the text has more tokens than the model takes, and input.overflow is "dead_letter"',
    )
