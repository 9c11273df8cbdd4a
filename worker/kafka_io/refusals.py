"""The broker's answer to a batch, read for each of its records.

The functions are for any thread, a `Sieve` is its sink's. Imports no inference and no runtime.

A broker takes a batch whole or not at all. It names the records for which it was refused, and the
client gives the reason to their futures alone. The others of the batch, and what the client drops
unsent afterwards, were refused nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from kafka import errors

from worker.core.records import Encoded, Partition, RecordRef
from worker.core.replacement import ReplaceOutcome
from worker.core.topic_limits import Refusal
from worker.errors import PublishRefused
from worker.kafka_io.translation import plain, translate

_SIZES = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)


class NotSent(errors.KafkaError):  # type: ignore[misc] # the client has no types
    """The client dropped it unsent, after another record was refused."""


def spared(error: Exception) -> bool:
    """True where another record was refused, and this one fell with it."""
    # Its batch mates get the root of the client's errors itself.
    return isinstance(error, NotSent) or type(error) is errors.KafkaError


def refusal_of(error: Exception | None) -> Refusal | None:
    """The refusal of this very record, or None."""
    if error is None or not isinstance(translate(error), PublishRefused):
        return None
    words = plain(error)
    if isinstance(error, _SIZES):
        return Refusal("size", words)
    # The client calls several refused records invalid, whichever reason each has.
    if isinstance(error, errors.InvalidTimestampError) or "imestamp" in words:
        return Refusal("timestamp", words)
    return Refusal("record", words)


class Sieve:
    """Takes out of what was sent the records that were refused, and puts others in their place.

    If the broker refused a batch and named no record, each of its records is sent alone next; the
    culprit is refused again. A dead letter for which there is no other outcome stays out, and so do
    all records that follow it in its partition: each restart would publish them again.

    Args:
        replace_outcome: gives another outcome for one that its topic refuses; raises PublishRefused where
            there is none.

    Attributes:
        final: the first refusal of that kind; the worker stops once the rest is published.
    """

    def __init__(self, replace_outcome: ReplaceOutcome) -> None:
        self._replace_outcome = replace_outcome
        self._alone: set[RecordRef] = set()
        self._shut: dict[Partition, int] = {}
        self.final: PublishRefused | None = None

    def alone(self, outcome: Encoded) -> bool:
        """True where its answer must come before the next record is sent."""
        return outcome.ref in self._alone

    def settled(self) -> None:
        """All that was sent is acknowledged."""
        self._alone.clear()

    def replaced(
        self, outcomes: Iterable[Encoded], errors: Iterable[Exception | None]
    ) -> list[Encoded]:
        """The outcomes in their order, another one in the place of each that was refused.

        Args:
            outcomes: what was sent.
            errors: what became of each.
        """
        sent, told = list(outcomes), list(errors)
        times = Counter(map(id, told))
        refused: dict[RecordRef, Refusal] = {}
        for outcome, error in zip(sent, told, strict=True):
            self._alone.discard(outcome.ref)
            refusal = refusal_of(error)
            if refusal is not None and times[id(error)] > 1:  # one error of a whole batch
                self._alone.add(outcome.ref)
            elif refusal is not None:
                refused[outcome.ref] = refusal
        mended = {
            one.ref: self._another(one, refused[one.ref]) for one in sent if one.ref in refused
        }
        # The refusals have corrected the terms for the others too.
        others = (
            mended[o.ref] if o.ref in mended else self._replace_outcome(o, None) for o in sent
        )
        return [outcome for outcome in others if outcome is not None]

    def _another(self, outcome: Encoded, refusal: Refusal) -> Encoded | None:
        try:
            return self._replace_outcome(outcome, refusal)
        except PublishRefused as error:
            self.final = self.final or error
            place = Partition(outcome.ref.topic, outcome.ref.partition)
            self._shut[place] = min(self._shut.get(place, outcome.ref.offset), outcome.ref.offset)
            return None

    def passing(self, outcomes: Iterable[Encoded]) -> list[Encoded]:
        """Without what follows a refused dead letter in its partition."""
        return [o for o in outcomes if not self._stopped(o.ref)]

    def _stopped(self, ref: RecordRef) -> bool:
        first = self._shut.get(Partition(ref.topic, ref.partition))
        return first is not None and ref.offset >= first
