"""The last posts: a handful, a few of them a second, for people to watch.

The publish thread notes, any other reads one tuple that is replaced whole. A sample: under load most
outcomes pass unseen, so that what it costs depends on seconds and not on records. Imports core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

from worker.clock import Clock
from worker.core.records import DeadLettered, Outcome, RawRecord
from worker.core.visible import excerpt

KEPT: Final = 8
A_SECOND: Final = 6
CHARACTERS: Final = 280
_SCORES: Final = 5  # of the most probable labels

Post = dict[str, Any]


class PostSource(Protocol):
    """Whoever knows the last posts: a worker, or the parent of several."""

    def latest(self) -> Sequence[Post]:
        """The newest first."""
        ...


class RecentPosts:
    """A sample of what was labelled last.

    Args:
        texts: whether the texts themselves are kept; else their lengths alone.
        clock: dates them and counts the seconds.

    Attributes:
        labels: in the order of the model's probabilities; set before the first batch.
    """

    def __init__(self, *, texts: bool, clock: Clock) -> None:
        self._texts, self._clock = texts, clock
        self._second, self._left = 0, 0
        self._last: tuple[Post, ...] = ()
        self.labels: Sequence[str] = ()

    def latest(self) -> Sequence[Post]:
        """The newest first."""
        return self._last

    def note(self, outcomes: Sequence[Outcome]) -> None:
        """See a batch go out; most of it is not kept. Publish thread only."""
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._left = second, A_SECOND
        seen = outcomes[-self._left :] if self._left else ()
        if not seen:
            return
        self._left -= len(seen)
        now_ms = self._clock.wall_ms()
        made = [self._post(outcome, now_ms) for outcome in reversed(seen)]
        self._last = (*made, *self._last)[:KEPT]

    def _post(self, outcome: Outcome, now_ms: int) -> Post:
        if isinstance(outcome, DeadLettered):
            return _named(outcome.record, now_ms) | {"reason": outcome.reason.value}
        text, prediction = outcome.item.text, outcome.prediction
        scores = ranked(self.labels, prediction.probabilities)
        post = _named(outcome.item.record, now_ms) | {"characters": len(text), "scores": scores}
        return post | {"text": excerpt(text, CHARACTERS)} if self._texts else post


def _named(record: RawRecord, now_ms: int) -> Post:
    topic, partition, offset, _ = record.ref
    return {"id": f"{topic}/{partition}/{offset}", "at": now_ms}


def ranked(labels: Sequence[str], probabilities: Sequence[float]) -> list[tuple[str, float]]:
    """The most probable labels first, and not too many."""
    pairs = zip(labels, probabilities, strict=True)
    return sorted(pairs, key=lambda pair: -pair[1])[:_SCORES]
