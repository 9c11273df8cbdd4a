"""Decides how the worker handles an error; the stages carry it out.

| disposition | error | handling |
|---|---|---|
| RETRY | the broker is unavailable, a timeout | the same work again, with backoff |
| SPLIT | the model fails on several records, or out of memory | halves, down to single records |
| DEAD_LETTER | a single record fails for good | a dead letter; the other records are published |
| STOP | any other error | completes the work that is safe, exits with code 1 |

Owns: the handling of each error, and the circuit breaker.
Thread: any for the functions; a `CircuitBreaker` belongs to one thread. Pure.
Must not import: anything but errors.
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

# The failure and its cause, for the message of an open circuit.
MODEL = (
    "failed in the model or its preparation",
    "model or prepare.function is at fault, not the records; no record of this batch was published",
)
OUTPUT = (
    "have an outcome that its topic refuses",
    "the topic's configuration does not suit the outcomes; the records are dead letters",
)


class Disposition(StrEnum):
    """The four ways to handle an error."""

    RETRY = "retry"
    SPLIT = "split"
    DEAD_LETTER = "dead_letter"
    STOP = "stop"


def disposition(error: BaseException, *, records: int = 0) -> Disposition:
    """Return how to handle an error.

    Args:
        error: the exception.
        records: number of records that the tokenizer or the model was processing; 0 in other
            stages, in which a record can't be the cause of an unknown error.
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
    """A record that fails on its own."""

    error: Exception
    attempts: int


def isolate(
    items: Sequence[Item], run: Callable[[Sequence[Item]], Sequence[Result]]
) -> list[Result | Failed]:
    """Run a batch; if it fails, halve it until the failing items are alone.

    A batch of n items with one failing item needs at most 2 log2(n) + 1 extra runs. A single item
    gets `ATTEMPTS_ALONE` tries, so that it survives a temporary fault (memory that another item of
    the batch held).

    Returns:
        The result or `Failed` of each item, in order.

    Raises:
        Exception: an error with the disposition STOP or RETRY.
    """
    if not items:
        return []
    try:
        return list(run(items))
    except Exception as error:
        if disposition(error, records=len(items)) in (Disposition.STOP, Disposition.RETRY):
            raise
        if len(items) == 1:
            return [_retry_alone(items, run, error)]
    middle = len(items) // 2
    return isolate(items[:middle], run) + isolate(items[middle:], run)


def _retry_alone(
    items: Sequence[Item], run: Callable[[Sequence[Item]], Sequence[Result]], first: Exception
) -> Result | Failed:
    error = first
    for _ in range(ATTEMPTS_ALONE - 1):
        try:
            return run(items)[0]
        except Exception as next_error:
            if disposition(next_error, records=1) is not Disposition.DEAD_LETTER:
                raise
            error = next_error
    return Failed(error, ATTEMPTS_ALONE)


def backoff(attempt: int, *, base: float = 0.1, cap: float = 10.0) -> float:
    """Return the seconds to wait before the next try: exponential, with full jitter, at most `cap`.

    Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
    """
    return random.uniform(0, min(cap, base * 2.0 ** min(attempt, 32)))


class CircuitBreaker:
    """Stops a worker whose model or output topic fails, before all records become dead letters.

    Counts only records that reached the model, or the output topic. Unreadable input is the
    producer's fault: a restart does not fix it. It neither opens the circuit nor hides a model that
    fails on every text between.

    Args:
        in_a_row: number of consecutive failures at which the circuit opens.
        ratio: share of the last `RATIO_WINDOW` records above which the circuit opens, as soon as
            that is certain; 1 disables this rule.
        blame: `MODEL` or `OUTPUT`.
    """

    def __init__(self, in_a_row: int, ratio: float, blame: tuple[str, str] = MODEL) -> None:
        self._in_a_row, self._ratio, self._blame = in_a_row, ratio, blame
        self._row = self._seen = 0
        self._failed_at: deque[int] = deque()

    def twin(self, blame: tuple[str, str] | None = None) -> CircuitBreaker:
        """Return another one with the same limits.

        Args:
            blame: None keeps that of this one.
        """
        return CircuitBreaker(self._in_a_row, self._ratio, blame or self._blame)

    def note(self, *, failed: bool) -> None:
        """Count one record.

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
        failure, cause = self._blame
        return CircuitOpen(f"{which} {failure} ({setting}): {cause}")


def stack_hash(error: BaseException) -> str:
    """Return 16 hex digits of a hash over the stack's files and functions and the error's type.

    Line numbers are left out, so that the hash stays the same when a release moves the code.
    """
    # `traceback.extract_tb` would read the sources, too.
    codes = [frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)]
    functions = [f"{PurePath(code.co_filename).name}:{code.co_name}" for code in codes]
    stack = "\n".join([type(error).__qualname__, *functions])
    return hashlib.sha256(stack.encode()).hexdigest()[:16]
