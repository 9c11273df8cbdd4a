"""The outcomes of replays, by the record that became a dead letter first.

Owns: which attempts of each replayed record have an outcome, and which one settled it.
Thread: main, of `streamlabel audit`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

from worker.core.replay import Replay

# `filtered` is the note of a record that has no result, `copy` a copy beside a result.
Kind = Literal["result", "filtered", "dead_letter", "copy"]
Source = tuple[str, int, int]  # topic, partition, offset of an input record


class ReplayOutcomes:
    """Tells the next outcome of a replayed record from a repeated one.

    A record that was dead and then labelled or filtered has one outcome. Each attempt may add a
    dead letter, until one settles the record by a result or the note of a filtered record; after
    that there is no further attempt. Everything else is a repeat: a second outcome of an attempt (a
    crash repeated the replay), a second result, and an outcome of an attempt after the result.

    Attributes:
        labelled: number of records that a replay labelled.

    Add results first, then notes, then dead letters. It takes about 300 bytes a replayed record.
    """

    def __init__(self) -> None:
        self._attempts: defaultdict[Source, int] = defaultdict(int)  # a bit for each
        self._settled: dict[Source, int] = {}  # the attempt
        self.labelled = 0

    def add(self, kind: Kind, replay: Replay) -> bool:
        """Add an outcome, and return False if it is a repeat."""
        source, attempt = replay
        repeated = self._attempts[source] >> attempt & 1
        settled = self._settled.get(source, attempt)
        late = source in self._settled and (kind != "dead_letter" or attempt > settled)
        self._attempts[source] |= 1 << attempt
        if repeated or late:
            return False
        if kind != "dead_letter":
            self._settled[source] = attempt
            self.labelled += kind == "result"
        return True

    def is_first(self, source: Source) -> bool:
        """Return whether only one attempt has an outcome so far."""
        return self._attempts[source].bit_count() == 1

    def is_settled(self, source: Source) -> bool:
        """Return whether a replay labelled or filtered the record."""
        return source in self._settled
