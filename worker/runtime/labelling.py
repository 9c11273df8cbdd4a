"""What the tokenise and infer stages do with a micro-batch; threads are `pipeline`'s business.

Each method is called by one thread: `tokenise` by the tokenise thread, `infer` by the infer
thread. Every entry comes out with exactly one outcome. Imports core; no kafka, no torch.

A text that comes twice in a micro-batch is cut and run once, and each of its records has the
outcome: a dead letter each, where it fails, and the breaker counts each. A text that an earlier
micro-batch had is answered from the cache, if there is one; only the infer thread looks and adds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from schemas.dead_letter import DeadLetterReason
from worker.core.budget import ForwardBudget
from worker.core.cache import PredictionCache
from worker.core.faults import CircuitBreaker, Failed, stack_hash
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
from worker.errors import StreamlabelError
from worker.metrics import Metrics
from worker.runtime.forward import ForwardPasses, Step, tokenise

_MODEL_AT_FAULT = (DeadLetterReason.TOKENISER_FAILED, DeadLetterReason.MODEL_FAILED)


@dataclass(frozen=True, slots=True)
class Tokenised:
    """A micro-batch cut into forward passes.

    Attributes:
        tokens: of the batch, estimated.
        items: the entries whose text was read, by their index in the batch.
        repeats: those of them whose text an earlier entry has, and that entry's index.
        keys: of the other texts, in the cache; none where there is no cache.
        inputs: forward passes; their positions are indexes in the batch.
        outcomes: what is known already (dead letters), by index in the batch.
    """

    size: int
    tokens: int
    items: dict[int, WorkItem]
    repeats: dict[int, int]
    keys: dict[int, bytes]
    inputs: list[ModelInput]
    outcomes: dict[int, Outcome]

    def __len__(self) -> int:
        return self.size


class Labeller:
    """Gives every entry of a micro-batch its outcome.

    Args:
        tokeniser, classifier: the model.
        refuse_long: whether a text of too many tokens is a dead letter (else it is cut).
        breaker: told, in poll order, of each text's fate in the tokenizer or the model.
        budget: how large a forward pass may be.
        metrics: token counts and padding.
        cache: what the model said of earlier texts; None keeps nothing.
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
    ) -> None:
        self._tokeniser, self._cache = tokeniser, cache
        self._passes = ForwardPasses(classifier, budget, metrics)
        self._refuse_long = refuse_long
        self._breaker, self._metrics = breaker, metrics

    def tokenise(self, batch: MicroBatch, step: Step) -> Tokenised:
        """Cut a micro-batch into forward passes; unreadable records have their outcome already.

        Args:
            batch: the micro-batch.
            step: called before each call of the tokenizer.
        """
        items: dict[int, WorkItem] = {}
        outcomes: dict[int, Outcome] = {}
        for place, entry in enumerate(batch.entries):
            if isinstance(entry, InvalidRecord):
                outcomes[place] = DeadLettered(entry.record, entry.reason, entry.message)
            else:
                items[place] = entry
        repeats = _repeats(items)
        keys: dict[int, bytes] = {}
        if self._cache is not None:
            keys = {p: self._cache.key(items[p].text) for p in items if p not in repeats}
        tokenised = Tokenised(len(batch), batch.tokens, items, repeats, keys, [], outcomes)
        if items:
            self._cut(tokenised, step)
        return tokenised

    def _cut(self, tokenised: Tokenised, step: Step) -> None:
        places = [place for place in tokenised.items if place not in tokenised.repeats]
        texts = [tokenised.items[place].text for place in places]
        inputs, failed = tokenise(self._tokeniser, texts, step)
        self._accept(inputs, places, tokenised)
        for position, result in failed.items():
            place = places[position]
            tokenised.outcomes[place] = _failed(
                tokenised.items[place], result, DeadLetterReason.TOKENISER_FAILED
            )

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
                kept = found.take(short)
                renamed = tuple(places[position] for position in kept.positions)
                tokenised.inputs.append(replace(kept, positions=renamed))

    def infer(self, tokenised: Tokenised, step: Step) -> list[Outcome]:
        """Run the model; an outcome for every entry, in poll order.

        Args:
            tokenised: the micro-batch.
            step: called before each forward pass.

        Raises:
            CircuitOpen: too many records failed.
        """
        known = self._recall(tokenised)
        for model_input in _without(known, tokenised.inputs) if known else tokenised.inputs:
            for place, result in self._passes.run(model_input, step):
                tokenised.outcomes[place] = _outcome(tokenised.items[place], result)
        self._remember(tokenised)
        for place, first in tokenised.repeats.items():
            tokenised.outcomes[place] = _same(tokenised.items[place], tokenised.outcomes[first])
        self._judge(tokenised, known)
        return [tokenised.outcomes[place] for place in range(tokenised.size)]

    def _recall(self, tokenised: Tokenised) -> set[int]:
        """Give their outcome to the texts that the cache knows; returns their indexes."""
        places = [place for one in tokenised.inputs for place in one.positions]
        known: set[int] = set()
        if self._cache is not None:
            for place in places:
                if found := self._cache.get(tokenised.keys[place]):
                    tokenised.outcomes[place] = Classified(tokenised.items[place], found)
                    known.add(place)
        self._metrics.cache_hits.labels("batch").inc(len(tokenised.repeats))
        self._metrics.cache_hits.labels("cache").inc(len(known))
        self._metrics.cache_misses.inc(len(places) - len(known))
        return known

    def _remember(self, tokenised: Tokenised) -> None:
        """Keep what the model said; a failure may pass, and is none of its words."""
        if self._cache is None:
            return
        for place, key in tokenised.keys.items():
            outcome = tokenised.outcomes[place]
            if isinstance(outcome, Classified):
                self._cache.put(key, outcome.prediction)
        self._metrics.cache_bytes.set(self._cache.size)

    def _judge(self, tokenised: Tokenised, known: AbstractSet[int]) -> None:
        """Let the breaker see the batch: texts that were labelled, and texts that failed.

        What the cache knew says nothing of the model as it is now: it must not hide one that fails
        on every text between.
        """
        for place in tokenised.items:
            outcome = tokenised.outcomes[place]
            if tokenised.repeats.get(place, place) in known:
                continue
            if isinstance(outcome, Classified):
                self._breaker.note(failed=False)
            elif outcome.reason in _MODEL_AT_FAULT:
                self._breaker.note(failed=True)


def _repeats(items: Mapping[int, WorkItem]) -> dict[int, int]:
    """Entries whose text an earlier entry has, and the index of the first such entry."""
    first: dict[str, int] = {}
    found = {place: first.setdefault(item.text, place) for place, item in items.items()}
    return {place: same for place, same in found.items() if same != place}


def _without(known: AbstractSet[int], inputs: Iterable[ModelInput]) -> Iterator[ModelInput]:
    """Forward passes without these positions."""
    for model_input in inputs:
        rows = [row for row, place in enumerate(model_input.positions) if place not in known]
        if rows:
            yield model_input.take(rows)


def _same(item: WorkItem, outcome: Outcome) -> Outcome:
    """What came of a text, for another record that has it."""
    if isinstance(outcome, Classified):
        return Classified(item, outcome.prediction)
    return replace(outcome, record=item.record)


def _outcome(item: WorkItem, result: Prediction | Failed) -> Outcome:
    if isinstance(result, Failed):
        return _failed(item, result, DeadLetterReason.MODEL_FAILED)
    return Classified(item, result)


def _failed(item: WorkItem, failed: Failed, reason: DeadLetterReason) -> DeadLettered:
    # A foreign error's own words may quote the text; its type and the stack's hash do not.
    message = type(failed.error).__name__
    if isinstance(failed.error, StreamlabelError):
        message = f"{message}: {failed.error}"
    return DeadLettered(
        item.record,
        reason,
        message,
        stack_hash=stack_hash(failed.error),
        attempt=failed.attempts,
    )


def _too_long(item: WorkItem) -> DeadLettered:
    return DeadLettered(
        item.record,
        DeadLetterReason.TOO_MANY_TOKENS,
        'the text has more tokens than the model takes, and input.overflow is "dead_letter"',
    )
