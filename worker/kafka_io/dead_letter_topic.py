"""Reads the dead-letter topic, and finds out which of its records have been replayed.

Owns: an admin client and a reader.
Thread: main.
Must not import: inference, runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from worker.clock import Clock
from worker.core.coordinates import GROUP_HEADER, SOURCE_HEADER, parse_source
from worker.core.dead_letters import Letter, last_header, read_letter
from worker.core.replay import REPLAY_HEADER, parse_replay
from worker.core.route_headers import ROUTE_HEADER
from worker.core.settled_letters import SettledLetters
from worker.core.topics import TopicInfo
from worker.errors import ArgumentsError, BrokerAway, TopicMissing
from worker.kafka_io.admin import Admin
from worker.kafka_io.audit_outlets import find_outlets
from worker.kafka_io.connection import Closeable
from worker.kafka_io.reader import TopicReader
from worker.settings import Settings, WorkerTopics

_PROGRESS_EVERY: Final = 20_000  # records

# (topic, number of records read, number of offsets)
ReadProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class LetterRange:
    """The offsets of the dead-letter topic, by partition.

    Attributes:
        starts: the first that the topic still has.
        ends: after the last committed record.
    """

    starts: Mapping[int, int]
    ends: Mapping[int, int]

    def offsets_from(self, positions: Mapping[int, int]) -> int:
        """Return the number of offsets from these on, a few of which may have no record."""
        return sum(max(0, end - positions.get(p, 0)) for p, end in self.ends.items())


class DeadLetterTopic(Closeable):
    """The dead-letter topic of a worker; a context manager.

    Args:
        settings: cluster and topics.
        progress: called from time to time.
        clock: bounds waits.

    Attributes:
        admin: the admin client.
        topics: of the worker, with the inputs that match now.
        info: describes the dead-letter topic.

    Raises:
        TopicMissing: the dead-letter topic does not exist.
        BrokerAway, AccessDenied, Fatal: as `Admin`.
    """

    def __init__(
        self, settings: Settings, progress: ReadProgress, clock: Clock | None = None
    ) -> None:
        self._progress, self._settings = progress, settings
        self.admin = Admin(settings.kafka, clock)
        try:
            self.topics: WorkerTopics = self.admin.resolve(settings.topics)
            self.info = self._describe()
            self._reader = TopicReader(settings.kafka, clock=clock)
        except BaseException:
            self.admin.close()
            raise

    def _describe(self) -> TopicInfo:
        name = self.topics.dead_letters
        info = self.admin.topics([name])[name]
        if info is None:
            raise TopicMissing(
                f"the dead-letter topic {name!r} does not exist: name it with "
                "--output-dead-letter-topic, or create it with `streamlabel topics create`"
            )
        return info

    @property
    def name(self) -> str:
        """Name of the topic."""
        return self.topics.dead_letters

    def close(self) -> None:
        """Close the connections."""
        self._reader.close()
        self.admin.close()

    def range(self) -> LetterRange:
        """Return the offsets that the topic has now, up to its first open transaction."""
        name = self.name
        return LetterRange(
            self.admin.start_offsets(name), self.admin.end_offsets(name, "read_committed")
        )

    def require(self, partitions: Collection[int]) -> None:
        """Return if the topic has these partitions.

        Raises:
            ArgumentsError: names the others.
        """
        if unknown := sorted(set(partitions) - set(range(self.info.partitions))):
            raise ArgumentsError(
                f"--partition: {self.name} has no partition {', '.join(map(str, unknown))}; there "
                f"are 0 to {self.info.partitions - 1}"
            )

    def read(
        self, ends: Mapping[int, int], starts: Mapping[int, int] | None = None
    ) -> Iterator[Letter]:
        """Yield the dead letters of some partitions, in offset order by partition.

        Args:
            ends: partition -> the offset to stop at.
            starts: partition -> the offset to begin at; default: the first.

        Raises:
            BrokerAway: no record arrived for a while.
        """
        starts = starts or {}
        total = sum(max(0, end - starts.get(p, 0)) for p, end in ends.items())
        for number, record in enumerate(self._reader.read(self.name, ends, starts)):
            if number % _PROGRESS_EVERY == 0:
                self._progress(self.name, number, total)
            yield read_letter(
                record.partition,
                record.offset,
                record.timestamp_ms,
                record.key,
                record.value,
                record.headers,
            )
        self._require_all(self.name)

    def newest(
        self, ends: Mapping[int, int], starts: Mapping[int, int] | None = None
    ) -> SettledLetters:
        """Read some dead letters, and return which of them have a later one of their record.

        Args:
            ends: as of `read`. All dead letters of a record are in one partition.
            starts: as of `read`.
        """
        settled = SettledLetters()
        for letter in self.read(ends, starts):
            settled.add(letter)
        return settled

    def settled(self, ends: Mapping[int, int]) -> SettledLetters:
        """Read dead letters, results and notes, and return which dead letters are settled."""
        settled = self.newest(ends)
        outlets = find_outlets(self.admin, self._settings, self.topics)
        names = [*outlets.topics("result"), *outlets.topics("filtered")]
        for name, info in self.admin.topics(names).items():
            if info is not None:
                self._read_results(name, settled, routed_only=name in outlets.fitting)
        return settled

    def _read_results(self, topic: str, settled: SettledLetters, *, routed_only: bool) -> None:
        ends = self.admin.end_offsets(topic, "read_committed")
        total = sum(ends.values())
        for number, record in enumerate(self._reader.read(topic, ends)):
            if number % _PROGRESS_EVERY == 0:
                self._progress(topic, number, total)
            source = parse_source(last_header(record.headers, SOURCE_HEADER) or b"")
            if source is None or (
                routed_only and last_header(record.headers, ROUTE_HEADER) is None
            ):
                continue
            replay = parse_replay(last_header(record.headers, REPLAY_HEADER))
            group = last_header(record.headers, GROUP_HEADER) or b""
            settled.add_result(source, replay, group)
        self._require_all(topic)

    def _require_all(self, topic: str) -> None:
        for partition, position in self._reader.unread.items():
            raise BrokerAway(f"{topic} {partition}: no record arrived after offset {position}")
