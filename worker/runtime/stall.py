"""Describes a stall: which stage holds records, for how long, and its stack.

Owns: the counts of the records that a stage holds and that the main loop awaits.
Thread: each `Holder` has the writers that its class names; any thread reads.
Must not import: anything but the standard library and `worker.underway`.

Records move one way, tokenise -> infer -> publish -> acknowledgement -> commit, and every hand-off
is bounded. Health therefore judges the last holder in that order by its own last step: earlier
holders may only be waiting for it, and later ones are empty. A holder that still takes steps, such
as one forward pass after another through a long batch, does not stall.

The two waits for the brokers are judged apart, because commits of one partition can succeed while
acknowledgements for another are missing.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterable
from typing import NamedTuple, Protocol

from worker import underway


class Holder(Protocol):
    """A place where records wait.

    Attributes:
        held: records, or partitions for commits.
        moved_at: time of the last step, in seconds of the monotonic clock.
    """

    @property
    def held(self) -> int: ...
    @property
    def moved_at(self) -> float: ...
    def describe(self) -> str:
        """Return a clause that can be followed by "for 12 s"."""
        ...

    def threads(self) -> Iterable[int | None]:
        """Return the idents of the threads that could release what is held."""
        ...


class StageProgress:
    """Counts the records that one stage holds, and notes its last step.

    Each counter has one writer: `entered` is called by the thread that hands over, everything else
    by the stage's own thread. So no lock is needed.

    Attributes:
        name: of the stage.
        moved_at: when the stage last took an item, began a part of it, or finished it.
        thread: ident of the stage's thread; None before it starts.
    """

    def __init__(self, name: str, now: float) -> None:
        self.name = name
        self.moved_at = now
        self.thread: int | None = None
        self._entered = self._left = 0

    def entered(self, records: int) -> None:
        """Count records that were put into the stage's inbox."""
        self._entered += records

    def left(self, records: int) -> None:
        """Count records that the stage has handed on."""
        self._left += records

    @property
    def held(self) -> int:
        """Records in the inbox and in progress."""
        return self._entered - self._left

    def describe(self) -> str:
        running = underway.name_of(self.thread)
        where = f", in {running}," if running else ""
        return f"the {self.name} stage has held {self.held} records without a step{where}"

    def threads(self) -> Iterable[int | None]:
        return (self.thread,)


class BrokerWait:
    """Notes how long the main loop has waited for the brokers. Written by the poll thread.

    Args:
        description: what it waits for; `{}` stands for the number held.
    """

    def __init__(self, description: str) -> None:
        self._description = description
        self._done = 0
        self.held = 0
        self.moved_at = 0.0

    def note(self, held: int, done: int, now: float) -> None:
        """Compare the counters with those of the last call.

        Args:
            held: how much waits now.
            done: how much was ever completed.
            now: seconds of the monotonic clock.
        """
        if not self.held or done != self._done:
            self.moved_at = now
        self.held, self._done = max(0, held), done

    def describe(self) -> str:
        return self._description.format(self.held)

    def threads(self) -> Iterable[int | None]:
        return [t.ident for t in threading.enumerate() if t.name.startswith("kafka-io")]


class Stall(NamedTuple):
    """A holder that has not moved for too long.

    Attributes:
        holder: a clause that names it.
        seconds: since its last step.
        threads: idents of the threads that could release what it holds.
        oldest: a clause that names the record that has waited longest; empty if unknown.
    """

    holder: str
    seconds: float
    threads: tuple[int | None, ...]
    oldest: str

    def __str__(self) -> str:
        return f"{self.holder} for {self.seconds:.0f} s{self.oldest}"


def stacks(threads: Iterable[int | None]) -> str:
    """Return the stacks of these threads: files, lines and source.

    Values are left out, because a local variable may hold a message's text.
    """
    frames = sys._current_frames()  # noqa: SLF001 - the documented way to another thread's stack
    known = [frames[ident] for ident in threads if ident in frames]
    return "\n".join("".join(traceback.format_stack(frame)) for frame in known)
