"""When the model stage needs its next micro-batch, and how large that one may be. Pure.

Waiting for mates pays only while the model could not begin anyway: the time that it needs for the
micro-batch at work is the wait that forms the next one (continuous batching), and no timer is
needed. So a micro-batch that is not full is demanded

* at once, while nothing is at work and nothing on the way: waiting would add to the latency of
  every record and give the model nothing to do;
* shortly before the model is expected to be done, while it works and nothing is on the way: by the
  time that tokenising takes. Earlier, it would sit in the model stage's inbox when it could still
  grow; later, the model would stand idle;
* not at all, while another one is on the way or in the inbox: that one is next.

What the model is expected to take is the micro-batch's tokens over the throughput that was
measured. Where that is wrong the loss is small and ends with the micro-batch: too early, and it is
smaller than it could be; too late, and the model is idle until the poll thread looks again.

The poll thread asks; the tokenise thread and the infer thread each tell of their own work. What one
tells the other is a single value that is replaced whole: who reads just before it is replaced is
told what was true a moment ago, and asks again within a hundredth of a second.
"""

from __future__ import annotations

import math
from typing import NamedTuple

_MEMORY = 0.2  # weight of the newest micro-batch in the averages: about the last ten count
_MARGIN = 0.005  # seconds that the poll thread may be late, busy with decoding
_SHARES = 3  # of the latency goal: `most_tokens` says of what


class Demand(NamedTuple):
    """What the model stage wants of the batcher.

    Attributes:
        at: when it needs a micro-batch, however small; seconds of the monotonic clock.
        most_tokens: what the latency goal allows it.
    """

    at: float
    most_tokens: float = math.inf


class Throughput:
    """Tokens a second, as an average that forgets. Told by one thread, read by any.

    Tokens and seconds are averaged each for itself, so that many small micro-batches, of which the
    fixed cost of a forward pass is the most part, do not outweigh a large one.

    Attributes:
        rate: tokens a second; 0 while nothing is known.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self._tokens = self._seconds = 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """A micro-batch of this many tokens took so long."""
        weight = _MEMORY if self.rate else 1.0
        self._tokens += weight * (tokens - self._tokens)
        self._seconds += weight * (seconds - self._seconds)
        self.rate = self._tokens / self._seconds if self._seconds > 0 else 0.0

    def seconds(self, tokens: int) -> float:
        """What this many tokens will take; 0 while nothing is known."""
        return tokens / self.rate if self.rate else 0.0


def most_tokens(goal: float | None, rate: float, waiting: int) -> float:
    """How many tokens a micro-batch may have, for its records to be done within the goal.

    A record waits for the micro-batch at work and then for its own; a third share is left for
    tokenising, publishing and the acknowledgement. Small ones do not change how much work is ahead
    of a record; they publish the first of a burst before the last of it are done. Where more waits than can be done within the
    goal, small micro-batches would only make it later still: throughput goes first.

    Args:
        goal: seconds in the worker, at most; None for no goal.
        rate: tokens a second; 0 for unknown.
        waiting: tokens that wait.
    """
    if goal is None or not rate or waiting > rate * goal:
        return math.inf
    return rate * goal / _SHARES


class _AtWork(NamedTuple):
    """What the infer thread tells: micro-batches that it has begun, and when it will be free."""

    begun: int = 0
    until: float = -math.inf


class Pace:
    """Knows the model stage's work well enough to say when more of it is wanted.

    Args:
        latency_goal: seconds from a record's poll to its acknowledgement; None for none.
    """

    def __init__(self, latency_goal: float | None = None) -> None:
        self._goal = latency_goal
        self._tokenise, self._infer = Throughput(), Throughput()
        self._handed = 0
        self._at_work = _AtWork()
        self._tokens, self._since = 0, 0.0

    def demand(self, waiting: int) -> Demand:
        """Poll thread: what is wanted, where this many tokens wait."""
        begun, until = self._at_work
        most = most_tokens(self._goal, self._infer.rate, waiting)
        if self._handed > begun:
            return Demand(math.inf, most)
        return Demand(until - self._tokenise.seconds(waiting) - _MARGIN, most)

    def handed(self) -> None:
        """Poll thread: a micro-batch is on its way to the model."""
        self._handed += 1

    def tokenised(self, tokens: int, seconds: float) -> None:
        """Tokenise thread: it has tokenised a micro-batch."""
        self._tokenise.note(tokens, seconds)

    def began(self, tokens: int, now: float) -> None:
        """Infer thread: the model begins a micro-batch."""
        self._tokens, self._since = tokens, now
        self._at_work = _AtWork(self._at_work.begun + 1, now + self._infer.seconds(tokens))

    def ended(self, now: float) -> None:
        """Infer thread: the model is done with it."""
        self._infer.note(self._tokens, now - self._since)
        self._at_work = _AtWork(self._at_work.begun)
