"""Predicts when the model stage needs its next micro-batch, and limits its size.

Waiting for more records is free only while the model is busy: the time that it spends on one
micro-batch is the wait that forms the next one (continuous batching), and no timer is needed. So a
micro-batch that is not full is demanded

* at once, while the model is idle and no micro-batch is on its way: waiting would add to the
  latency of every record and leave the model idle;
* shortly before the model is expected to finish, while it is busy and no micro-batch is on its way:
  earlier by the time that tokenising takes. Any earlier, it would sit in the model stage's inbox
  while it could still grow; any later, the model would be idle;
* not at all, while another micro-batch is on its way or in the inbox: that one is next.

The expected duration is the micro-batch's tokens over the measured throughput. A wrong estimate
costs little and ends with the micro-batch: too early, and the micro-batch is smaller than possible;
too late, and the model is idle until the poll thread looks again.

A full micro-batch closes at once. How large it may grow depends on the model's speed as well as on
the settings: a stop and a rebalance wait for the micro-batches under way, so one may take
`max_seconds` at most. Until the model has been measured, a micro-batch has one forward pass.

The tokenise thread and the infer thread each note their own work; the poll thread reads it. Each
note is a single value that is replaced atomically. A reader may see the value of a moment ago, and
reads again within a hundredth of a second.

Owns: the measured throughput.
Thread: main, tokenise, infer; each method states its thread.
Must not import: anything but core.records; pure.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from worker.core.records import DEFAULT_FORWARD_TOKENS, Trigger

_WEIGHT = 0.2  # of the newest micro-batch in the averages: about the last ten count
_MARGIN = 0.005  # seconds that the poll thread may be late because it decodes records
_SHARES = 3  # parts of the latency goal, see `most_tokens`
_GOAL: Trigger = "goal"
_SECONDS: Trigger = "seconds"


class Demand(NamedTuple):
    """The model stage's demand for the next micro-batch.

    Attributes:
        at: when it needs a micro-batch of any size; seconds of the monotonic clock.
        most_tokens: largest micro-batch within the latency goal and `max_seconds`.
        limit: which of the two `most_tokens` comes from.
        busy_until: when it is expected to finish its current micro-batch; -inf if it has none.
    """

    at: float
    most_tokens: float = math.inf
    limit: Trigger = "goal"
    busy_until: float = -math.inf


class Throughput:
    """Tokens a second, as an exponential moving average. Written by one thread, read by any.

    Tokens and seconds are averaged separately. So many small micro-batches, whose duration is
    mostly the fixed cost of a forward pass, do not outweigh a large one.

    Attributes:
        rate: tokens a second; 0 before the first measurement.
    """

    def __init__(self) -> None:
        self.rate = 0.0
        self._tokens = self._seconds = 0.0

    def note(self, tokens: int, seconds: float) -> None:
        """Add a micro-batch of this many tokens, which took this many seconds."""
        weight = _WEIGHT if self.rate else 1.0
        self._tokens += weight * (tokens - self._tokens)
        self._seconds += weight * (seconds - self._seconds)
        self.rate = self._tokens / self._seconds if self._seconds > 0 else 0.0

    def seconds(self, tokens: int) -> float:
        """Return the expected seconds for this many tokens; 0 before the first measurement."""
        return tokens / self.rate if self.rate else 0.0


def most_tokens(goal: float | None, rate: float, waiting: int) -> float:
    """Return the most tokens of a micro-batch whose records meet the latency goal.

    A record waits for the current micro-batch and then for its own; the third part of the goal is
    left for tokenising, publishing and the acknowledgement. Small micro-batches do not change the
    work ahead of a record; they publish the first records of a burst before the last ones are done.
    If more tokens wait than the goal allows for, small micro-batches would only add to the delay,
    so the size is not limited.

    Args:
        goal: most seconds from poll to acknowledgement; None for no goal.
        rate: tokens a second; 0 if unknown.
        waiting: tokens that wait.
    """
    if goal is None or not rate or waiting > rate * goal:
        return math.inf
    return rate * goal / _SHARES


class _Progress(NamedTuple):
    """The infer thread's progress: micro-batches that it has begun, and when it will be free."""

    begun: int = 0
    until: float = -math.inf


class Pace:
    """Predicts the model stage's demand.

    Args:
        latency_goal: seconds from a record's poll to its acknowledgement; None for no goal.
        max_seconds: most seconds of a micro-batch in the model.
    """

    def __init__(self, latency_goal: float | None = None, max_seconds: float = math.inf) -> None:
        self._goal, self._max_seconds = latency_goal, max_seconds
        self._tokenise, self._infer = Throughput(), Throughput()
        self._handed = 0
        self._progress = _Progress()
        self._tokens, self._since = 0, 0.0

    def restart(self) -> None:
        """Poll or infer thread: forget the speeds, because another model takes over."""
        self._tokenise, self._infer = Throughput(), Throughput()

    def demand(self, waiting: int) -> Demand:
        """Poll thread: return the demand while this many tokens wait."""
        begun, until = self._progress
        by_goal, by_time = most_tokens(self._goal, self._infer.rate, waiting), self._within_time()
        most, limit = min((by_goal, _GOAL), (by_time, _SECONDS))
        at = math.inf
        if self._handed == begun:
            at = until - self._tokenise.seconds(waiting) - _MARGIN
        return Demand(at, most, limit, until)

    def _within_time(self) -> float:
        """Return the tokens that the model labels in `max_seconds`."""
        if not self._infer.rate and self._max_seconds < math.inf:
            return DEFAULT_FORWARD_TOKENS
        return self._infer.rate * self._max_seconds if self._infer.rate else math.inf

    def handed(self) -> None:
        """Poll thread: note that a micro-batch is on its way to the model."""
        self._handed += 1

    def tokenised(self, tokens: int, seconds: float) -> None:
        """Tokenise thread: note that it has tokenised a micro-batch."""
        self._tokenise.note(tokens, seconds)

    def began(self, tokens: int, now: float) -> None:
        """Infer thread: note that the model begins a micro-batch."""
        self._tokens, self._since = tokens, now
        self._progress = _Progress(self._progress.begun + 1, now + self._infer.seconds(tokens))

    def ended(self, now: float) -> None:
        """Infer thread: note that the model has finished it."""
        self._infer.note(self._tokens, now - self._since)
        self._progress = _Progress(self._progress.begun)
