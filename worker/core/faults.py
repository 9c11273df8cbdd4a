"""What is done about an error. Pure: this module alone decides, the stages alone act.

| disposition | when | what happens |
|---|---|---|
| RETRY | the broker is away, a timeout | the same work again, with backoff |
| SPLIT | the model fails on several records, or out of memory | halves, until the culprit stands alone |
| DEAD_LETTER | a record fails alone, for good | a dead letter; its mates go on |
| STOP | anything else | drain what is safe, exit 1 |
"""

from __future__ import annotations

import hashlib
import random
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import PurePath
from typing import TypeVar

from worker.errors import BrokerAway, CircuitOpen, Fatal, RecordRejected

Item = TypeVar("Item")
Result = TypeVar("Result")

ATTEMPTS_ALONE = 2
RATIO_WINDOW = 1_000

# Whose fault it is that so many records fail, and what became of them.
MODEL = (
    "failed in the model",
    "the model is at fault, not the records; nothing of this batch was published",
)
OUTPUT = (
    "have a result that the output topic refuses",
    "the topic's configuration does not suit the results; the records are dead letters",
)


class Disposition(StrEnum):
    """The four answers to an error."""

    RETRY = "retry"
    SPLIT = "split"
    DEAD_LETTER = "dead_letter"
    STOP = "stop"


def disposition(error: BaseException, *, records: int = 0) -> Disposition:
    """What to do about `error`.

    Args:
        error: what was raised.
        records: how many records the tokenizer or the model was working on; 0 elsewhere, where
            nothing unknown can be blamed on a record.
    """
    if isinstance(error, Fatal) or not isinstance(error, Exception):
        return Disposition.STOP
    if isinstance(error, BrokerAway):
        return Disposition.RETRY
    if isinstance(error, RecordRejected):
        return Disposition.DEAD_LETTER
    if records == 0:
        return Disposition.STOP
    return Disposition.SPLIT if records > 1 else Disposition.DEAD_LETTER


@dataclass(frozen=True, slots=True)
class Failed:
    """A record that fails alone."""

    error: Exception
    attempts: int


def isolate(
    items: Sequence[Item], run: Callable[[Sequence[Item]], Sequence[Result]]
) -> list[Result | Failed]:
    """Run a batch; where it fails, halve it until the culprits stand alone.

    A batch of n with one culprit costs at most 2 log2(n) + 1 extra runs. A culprit gets
    `ATTEMPTS_ALONE` tries, so that a passing fault (memory that a batch mate held) spares it.

    Returns:
        For each item, in order, its result or `Failed`.

    Raises:
        Exception: what `disposition` answers with STOP or RETRY.
    """
    if not items:
        return []
    try:
        return list(run(items))
    except Exception as error:
        answer = disposition(error, records=len(items))
        if answer in (Disposition.STOP, Disposition.RETRY):
            raise
        if len(items) == 1:
            return [_alone(items, run, error)]
    middle = len(items) // 2
    return isolate(items[:middle], run) + isolate(items[middle:], run)


def _alone(
    items: Sequence[Item], run: Callable[[Sequence[Item]], Sequence[Result]], first: Exception
) -> Result | Failed:
    error = first
    for _ in range(ATTEMPTS_ALONE - 1):
        try:
            return run(items)[0]
        except Exception as again:
            if disposition(again, records=1) is not Disposition.DEAD_LETTER:
                raise
            error = again
    return Failed(error, ATTEMPTS_ALONE)


def backoff(attempt: int, *, base: float = 0.1, cap: float = 10.0) -> float:
    """Seconds to wait before try `attempt` + 1: exponential with full jitter, at most `cap`.

    Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return random.uniform(0, min(cap, base * 2.0 ** min(attempt, 32)))


class CircuitBreaker:
    """Stops a worker whose model, or output topic, is at fault, before all is a dead letter.

    Told only of records that reached the model, or the output topic. Unreadable input is its
    producer's fault: no restart mends it, and it neither opens the circuit nor hides a model that
    fails on every text between.

    Args:
        in_a_row: records in succession that may fail; at so many the circuit opens.
        ratio: share of the last `RATIO_WINDOW` records that may fail; above it the circuit opens,
            as soon as that is certain. 1 leaves it to `in_a_row`.
        blame: `MODEL` or `OUTPUT`.
    """

    def __init__(self, in_a_row: int, ratio: float, blame: tuple[str, str] = MODEL) -> None:
        self._in_a_row, self._ratio, self._blame = in_a_row, ratio, blame
        self._row = self._seen = 0
        self._failed_at: deque[int] = deque()

    def note(self, *, failed: bool) -> None:
        """Count one record's fate.

        Raises:
            CircuitOpen: too many records have failed; names the setting.
        """
        self._seen += 1
        self._row = self._row + 1 if failed else 0
        if failed:
            self._failed_at.append(self._seen)
        while self._failed_at and self._failed_at[0] <= self._seen - RATIO_WINDOW:
            self._failed_at.popleft()
        if self._row >= self._in_a_row:
            raise self._open(f"{self._row} records in a row", "max_consecutive_dead_letters")
        if len(self._failed_at) > self._ratio * RATIO_WINDOW:
            recent = f"{len(self._failed_at)} of the last {min(self._seen, RATIO_WINDOW)} records"
            raise self._open(recent, "max_dead_letter_ratio")

    def _open(self, which: str, setting: str) -> CircuitOpen:
        failed, fault = self._blame
        return CircuitOpen(f"{which} {failed} ({setting}): {fault}")


def stack_hash(error: BaseException) -> str:
    """16 hex digits that are equal for equal faults: files, functions and the error's type.

    Line numbers are left out, so that the hash outlives a release that moves the code.
    """
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{PurePath(frame.filename).name}:{frame.name}" for frame in frames]
    whole = "\n".join([type(error).__qualname__, *places])
    return hashlib.sha256(whole.encode()).hexdigest()[:16]
