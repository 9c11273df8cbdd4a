"""The header of a replay: which record it repeats, and for the how-manieth time.

A replay is another try to label a record that became a dead letter. Its results and dead letters
carry the header on, so the audit finds all outcomes of one record, and attempts are counted.

Owns: the header and its format.
Thread: any; pure functions.
Must not import: anything of worker.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

REPLAY_HEADER = "streamlabel-replay"

_LONGEST = 1_000  # bytes; a topic's name has 249 at most
_MOST = 2**63 - 1  # an offset of Kafka
MOST_ATTEMPTS = 1_000


class Replay(NamedTuple):
    """One more try to label a record.

    Attributes:
        source: topic, partition and offset of the record that became a dead letter first.
        attempt: 1 for the first replay.
    """

    source: tuple[str, int, int]
    attempt: int

    @property
    def header(self) -> tuple[str, bytes]:
        """The header that a replayed record has."""
        topic, partition, offset = self.source
        place = {"topic": topic, "partition": partition, "offset": offset}
        return REPLAY_HEADER, json.dumps({"source": place, "attempt": self.attempt}).encode()


def is_replay(headers: Iterable[tuple[str, bytes | None]]) -> bool:
    """Return whether a record, or an outcome that carries its headers on, is a replay."""
    for name, _ in headers:  # noqa: SIM110 - `any` takes twice as long
        if name == REPLAY_HEADER:
            return True
    return False


def parse_replay(value: bytes | None) -> Replay | None:
    """Return the replay that a header names, or None if it names none."""
    if value is None or len(value) > _LONGEST:
        return None
    try:
        document = json.loads(value)
        source, attempt = document["source"], document["attempt"]
        topic, numbers = source["topic"], (source["partition"], source["offset"], attempt)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    if not isinstance(topic, str) or not all(map(_is_count, numbers)):
        return None
    return Replay((topic, *numbers[:2]), attempt) if 1 <= attempt <= MOST_ATTEMPTS else None


def _is_count(number: object) -> bool:
    return type(number) is int and 0 <= number <= _MOST
