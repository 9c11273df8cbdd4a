"""The outcomes of replays, by the record that became a dead letter first.

Owns: which attempts of each replayed record have an outcome, and which one labelled it.
Thread: main, of `streamlabel audit`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

from worker.core.replay import Replay

Kind = Literal["result", "dead_letter"]
Source = tuple[str, int, int]  # topic, partition, offset of an input record


class ReplayOutcomes:
    """Tells the next outcome of a replayed record from a repeated one.

    A record that was dead and then labelled has one outcome. Each attempt may add a dead letter,
    until one adds a result; after that there is no further attempt. Everything else is a repeat:
    a second outcome of an attempt (a crash repeated the replay), a second result, and an outcome
    of an attempt after the result.

    Add results first, then dead letters. It takes about 300 bytes a replayed record.
    """

    def __init__(self) -> None:
        self._attempts: defaultdict[Source, int] = defaultdict(int)  # a bit for each
        self._labelled: dict[Source, int] = {}  # the attempt

    def add(self, kind: Kind, replay: Replay) -> bool:
        """Add an outcome, and return False if it is a repeat."""
        source, attempt = replay
        repeated = self._attempts[source] >> attempt & 1
        labelled = self._labelled.get(source, attempt)
        late = source in self._labelled and (kind == "result" or attempt > labelled)
        self._attempts[source] |= 1 << attempt
        if repeated or late:
            return False
        if kind == "result":
            self._labelled[source] = attempt
        return True

    def is_first(self, source: Source) -> bool:
        """Return whether only one attempt has an outcome so far."""
        return self._attempts[source].bit_count() == 1

    def is_labelled(self, source: Source) -> bool:
        """Return whether a replay labelled the record."""
        return source in self._labelled

    @property
    def labelled(self) -> int:
        """Number of records that a replay labelled."""
        return len(self._labelled)
