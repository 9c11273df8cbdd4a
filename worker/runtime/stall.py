"""Who holds the work, since when, and what its thread is doing: the words of a stall.

Holders are written by one thread each and read by any. Imports nothing but the standard library.

Work goes one way, tokenise -> infer -> publish -> acknowledgement -> commit, and every hand-over is
bounded. So the holder furthest down is the one to judge, by its own last step: what is before it
may only be waiting for it, and what is behind it has run empty. A holder that still takes steps
(forward pass by forward pass through a long batch) is none that stalls.

The two waits for the brokers are judged apart: one partition's commits can move while another's
acknowledgements do not.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable
from typing import NamedTuple, Protocol


class Holder(Protocol):
    """A place where records can be.

    Attributes:
        held: how much is there.
        moved_at: when it took its last step, seconds of the monotonic clock.
    """

    @property
    def held(self) -> int: ...
    @property
    def moved_at(self) -> float: ...
    def describe(self) -> str:
        """What is held, as the subject of a sentence that ends in "for 12 s"."""
        ...

    def threads(self) -> Iterable[int | None]:
        """Idents of the threads that could let go of it."""
        ...


class Wait:
    """What the main loop waits for the brokers to do. Written by the poll thread.

    Args:
        words: what is waited for; `{}` stands for how much.
    """

    def __init__(self, words: str) -> None:
        self._words = words
        self._done = 0
        self.held = 0
        self.moved_at = 0.0

    def note(self, held: int, done: int, now: float) -> None:
        """Look at the counters: what waits, and how much was done in all."""
        if not self.held or done != self._done:
            self.moved_at = now
        self.held, self._done = max(0, held), done

    def describe(self) -> str:
        return self._words.format(self.held)

    def threads(self) -> Iterable[int | None]:
        return [t.ident for t in threading.enumerate() if t.name.startswith("kafka-io")]


class Stall(NamedTuple):
    """Something that has not moved for too long; `oldest` is the record that waits longest."""

    what: str
    seconds: float
    threads: tuple[int | None, ...]
    oldest: str

    def __str__(self) -> str:
        return f"{self.what} for {self.seconds:.0f} s{self.oldest}"


def stacks(threads: Iterable[int | None]) -> str:
    """Where these threads are: files, lines and source. No values, for a text may be in one."""
    frames = sys._current_frames()  # noqa: SLF001 - CPython's documented way to another's stack
    found = [frames[ident] for ident in threads if ident in frames]
    return "\n".join("".join(traceback.format_stack(frame)) for frame in found)
