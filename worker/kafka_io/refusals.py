"""Reads the broker's answer to a batch for each of its records.

Owns: the records that were refused.
Thread: the functions, any; a `RefusalResolver`, its sink's.
Must not import: inference, runtime.

A broker accepts or refuses a batch whole. It names the records for which it refused the batch, and
the client passes the reason to their futures only. The other records of the batch, and those that
the client then drops unsent, were not refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from kafka import errors

from worker.core.records import Encoded, Identity, Partition, RecordRef
from worker.core.replacement import ReplaceOutcome
from worker.core.topic_limits import Refusal
from worker.errors import Fatal, Fenced, PublishRefused
from worker.kafka_io.internals import accumulator_of
from worker.kafka_io.translation import describe, translate

_SIZE_ERRORS = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)


class NotSent(errors.KafkaError):  # type: ignore[misc] # the client has no types
    """The client dropped the record unsent after another record was refused."""


def failed_with_another(error: Exception) -> bool:
    """Return whether a record failed only because another record was refused."""
    # For the rest of a refused batch the client uses the base class of its errors.
    return isinstance(error, NotSent) or type(error) is errors.KafkaError


def was_halted(error: Exception) -> bool:
    """Return whether a record failed because its producer ended before an acknowledgement."""
    return isinstance(error, errors.IllegalStateError)


def refusal_of(error: Exception | None) -> Refusal | None:
    """Return the refusal of this very record, or None."""
    if error is None or not isinstance(translate(error), PublishRefused):
        return None
    text = describe(error)
    if isinstance(error, _SIZE_ERRORS):
        return Refusal("size", text)
    # If a batch has several refused records, the client calls them all invalid.
    if isinstance(error, errors.InvalidTimestampError) or "imestamp" in text:
        return Refusal("timestamp", text)
    return Refusal("record", text)


def fail_only_unsent_batches(producer: Any) -> None:
    """Have the client drop only unsent batches after a refusal.

    The client sends nothing more after a refusal. It would fail all batches with the refusal of one
    record, even requests that are in flight and may be stored.
    """
    accumulator = accumulator_of(producer)
    abort_all, abort_unsent = accumulator.abort_batches, accumulator.abort_undrained_batches

    def abort(error: Exception, default: Callable[[Exception], None]) -> None:
        if refusal_of(error) is None:
            default(error)
        else:
            abort_unsent(NotSent("another record was refused"))

    accumulator.abort_batches = partial(abort, default=abort_all)
    accumulator.abort_undrained_batches = partial(abort, default=abort_unsent)


def publish_error(error: Exception, outcome: Encoded | None = None) -> Fatal:
    """Return the error for a record that was not accepted; it stops the worker."""
    cause = translate(error)
    if isinstance(cause, Fenced):
        return cause
    record = f" of {len(outcome.value or b'')} bytes to {outcome.topic}" if outcome else ""
    return PublishRefused(f"the broker refuses a record{record}: {cause}")


class RefusalResolver:
    """Replaces refused records among those that were sent.

    If the broker refused a batch and named no record, each of its records is sent alone next, and
    the invalid one is refused again. A dead letter without a replacement is left out, and so are
    all later records of its partition: otherwise each restart would publish them again.

    Args:
        replace_outcome: returns another outcome for one that its topic refused; raises
            PublishRefused if there is none.

    Attributes:
        final_error: the first refusal without a replacement; the worker stops once the rest is
            published.
    """

    def __init__(self, replace_outcome: ReplaceOutcome) -> None:
        self._replace_outcome = replace_outcome
        self._send_alone: set[Identity] = set()
        self._blocked_from: dict[Partition, int] = {}
        self.final_error: PublishRefused | None = None

    def must_be_sent_alone(self, outcome: Encoded) -> bool:
        """Return whether this record must be answered before the next one is sent."""
        return bool(self._send_alone) and outcome.identity in self._send_alone

    def all_acknowledged(self) -> None:
        """Note that everything sent was acknowledged."""
        self._send_alone.clear()

    def replace_refused(
        self, outcomes: Iterable[Encoded], failures: Iterable[Exception | None]
    ) -> list[Encoded]:
        """Return the outcomes in order, with replacements for those that were refused.

        Args:
            outcomes: those that were sent.
            failures: the exception of each, None without one.
        """
        sent, exceptions = list(outcomes), list(failures)
        occurrences = Counter(map(id, exceptions))
        refused: dict[Identity, Refusal] = {}
        for outcome, error in zip(sent, exceptions, strict=True):
            self._send_alone.discard(outcome.identity)
            refusal = refusal_of(error)
            if refusal is not None and occurrences[id(error)] > 1:  # one error for a whole batch
                self._send_alone.add(outcome.identity)
            elif refusal is not None:
                refused[outcome.identity] = refusal
        replacements = {
            outcome.identity: self._replacement(outcome, refused[outcome.identity])
            for outcome in sent
            if outcome.identity in refused
        }
        # The refusals have corrected the topics' limits, which apply to the other records too.
        corrected = (
            replacements[outcome.identity]
            if outcome.identity in replacements
            else self._replace_outcome(outcome, None)
            for outcome in sent
        )
        return [outcome for outcome in corrected if outcome is not None]

    def _replacement(self, outcome: Encoded, refusal: Refusal) -> Encoded | None:
        try:
            return self._replace_outcome(outcome, refusal)
        except PublishRefused as error:
            self.final_error = self.final_error or error
            ref = outcome.ref
            partition = Partition(ref.topic, ref.partition)
            first = self._blocked_from.get(partition, ref.offset)
            self._blocked_from[partition] = min(first, ref.offset)
            return None

    def without_blocked(self, outcomes: Iterable[Encoded]) -> list[Encoded]:
        """Return the outcomes that do not follow a refused dead letter in its partition."""
        return [outcome for outcome in outcomes if not self._is_blocked(outcome.ref)]

    def _is_blocked(self, ref: RecordRef) -> bool:
        first = self._blocked_from.get(Partition(ref.topic, ref.partition))
        return first is not None and ref.offset >= first
