"""Keeps a sample of the last posts for the page: eight posts, at most six new ones a second.

Owns: the sample, one tuple that is replaced whole.
Thread: publish writes; any thread may read.
Must not import: kafka, torch, worker.runtime.

A sample, so that its cost depends on seconds and not on records: under load it skips most outcomes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from worker.clock import Clock
from worker.core.records import DeadLettered, Filtered, Outcome, RawRecord
from worker.core.visible import excerpt
from worker.http.notes import POSTS
from worker.http.said import shown

PER_SECOND: Final = 6
MAX_CHARACTERS: Final = 280
_SCORES: Final = 5  # labels shown for a post, the most probable ones

Post = dict[str, Any]


class RecentPosts:
    """A sample of the last outcomes.

    Args:
        texts: True keeps the texts, False their lengths only.
        clock: dates the posts and measures the seconds.
    """

    def __init__(self, *, texts: bool, clock: Clock) -> None:
        self._texts, self._clock = texts, clock
        self._second, self._remaining = 0, 0
        self._posts: tuple[Post, ...] = ()

    def latest(self) -> Sequence[Post]:
        """Return the last posts, newest first."""
        return self._posts

    def note(self, outcomes: Sequence[Outcome]) -> None:
        """Sample a batch that was published. Publish thread only."""
        second = int(self._clock.monotonic())
        if second != self._second:
            self._second, self._remaining = second, PER_SECOND
        sample = outcomes[-self._remaining :] if self._remaining else ()
        if not sample:
            return
        self._remaining -= len(sample)
        now_ms = self._clock.wall_ms()
        posts = [self._post(outcome, now_ms) for outcome in reversed(sample)]
        self._posts = (*posts, *self._posts)[:POSTS]

    def _post(self, outcome: Outcome, now_ms: int) -> Post:
        if isinstance(outcome, DeadLettered):
            return _identity(outcome.record, now_ms) | {"reason": outcome.reason.value}
        if isinstance(outcome, Filtered):
            return _identity(outcome.item.record, now_ms) | {"filtered": outcome.words}
        text, post = outcome.item.text, _identity(outcome.item.record, now_ms)
        post |= {"characters": len(text)} | shown(outcome)
        return post | {"text": excerpt(text, MAX_CHARACTERS)} if self._texts else post


def _identity(record: RawRecord, now_ms: int) -> Post:
    topic, partition, offset, _ = record.ref
    return {"id": f"{topic}/{partition}/{offset}", "at": now_ms}
