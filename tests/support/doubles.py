"""Test doubles for the edges of the worker: producer, group, source, pipeline.

The test answers instead of the broker. The futures are real ones of the client.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from kafka.errors import IllegalStateError
from kafka.future import Future

from tests.support.clocks import HandClock
from worker.core.pace import Demand
from worker.core.records import Encoded, MicroBatch, Partition, RawRecord, RecordRef


def outcome(offset: int, *, partition: int = 0, epoch: int = 1) -> Encoded:
    """Return a result for topic `out`."""
    ref = RecordRef("in", partition, offset, epoch)
    return Encoded(ref, "out", None, b"{}", [], 0, label="POSITIVE", score=0.75)


def offsets(outcomes: Iterable[Encoded]) -> list[int]:
    return [one.ref.offset for one in outcomes]


class Producer:
    """A fake `Publisher`.

    Attributes:
        sent: outcomes and their futures.
        before: called before each call of the client with its name; may raise.
        forgets: whether it ignores the records that it gets.
        leader: whether partitions have a leader.
        ends: the calls that ended it, in order.
        halted: whether one of them did.
    """

    def __init__(self, before: Callable[[str], None] = lambda _: None) -> None:
        self.halted = False
        self.sent: list[tuple[Encoded, Any]] = []
        self.before = before
        self.forgets = False
        self.leader = True
        self.ends: list[str] = []

    @property
    def offsets(self) -> list[int]:
        """Return the offsets that were sent."""
        return offsets(one for one, _ in self.sent)

    def acknowledge(self, *some: int) -> None:
        """Answer for these offsets as the broker would (default: all that were sent)."""
        for one, future in self.sent:
            if not some or one.ref.offset in some:
                future.success(None)

    def await_metadata(self) -> None:
        self.before("await_metadata")

    def send(self, one: Encoded) -> Any:
        self.before("send")
        self.sent.append((one, Future()))
        return self.sent[-1][1]

    def settle(self, _: object) -> None:
        self.before("settle")

    def has_leader(self, _: object) -> bool:
        self.before("has_leader")
        return self.leader

    def stalled_partitions(self, _: float) -> set[Any]:
        waits = any(not future.is_done for _, future in self.sent)
        return {("out", 0)} if self.forgets and waits else set()

    def check(self) -> None:
        self.before("check")

    # For transactions.

    last_error: Exception | None = None

    def begin_epoch(self) -> None:
        self.before("begin_epoch")

    def begin(self) -> None:
        self.before("begin")

    def commit(self, *_: object) -> None:
        self.before("commit")

    def abort(self, _: float) -> None:
        self.ends.append("abort")
        self.before("abort")

    def halt(self) -> None:
        self._end("halt", "halt")

    def abandon(self) -> None:
        self._end("abandon", "abandon")

    def close(self, timeout: float) -> None:
        self._end("close", f"close within {timeout:g} s")

    def _end(self, how: str, words: str) -> None:
        self.ends.append(words)
        self.halted = True
        self.before(how)
        for _, future in self.sent:
            if not future.is_done:  # as the client does with dropped records
                future.failure(IllegalStateError(how))


class Group:
    """A fake source: the current assignments, and whether the membership is in doubt."""

    def __init__(self) -> None:
        self.epoch = 1
        self.before: Callable[[RecordRef], None] = lambda _: None

    def current(self, ref: RecordRef) -> bool:
        self.before(ref)
        return ref.epoch == self.epoch

    def group_metadata(self) -> Any:
        return None


class Source:
    """A fake `KafkaSource`.

    Attributes:
        script: the action of each poll, which returns its records; a poll after the last one calls
            `at_end`.
        before: called before each other call with its name; may raise.
        asked: the record limit of each poll.
        calls: the other calls, in order.
        commits: offsets that were committed, in order.
        answers: the callbacks of asynchronous commits.
        end, at: the end offset and the position, the same in every partition.
    """

    def __init__(self, clock: HandClock, at_end: Callable[[], object]) -> None:
        self._clock, self._at_end = clock, at_end
        self.script: deque[Callable[[], Iterable[RawRecord]]] = deque()
        self.before: Callable[[str], None] = lambda _: None
        self.asked: list[int] = []
        self.calls: list[str] = []
        self.commits: list[dict[Partition, int]] = []
        self.answers: list[Callable[[Any], None]] = []
        self.end = 0
        self.is_finished = False
        self.at: dict[Partition, int] = {}

    def _ask(self, what: str) -> None:
        self.calls.append(what)
        self.before(what)

    def poll(self, timeout: float, max_records: int) -> list[RawRecord]:
        self.asked.append(max_records)
        self._clock.sleep(timeout)
        self.before("poll")
        if self.script:
            return list(self.script.popleft()())
        self._at_end()
        return []

    def commit(self, offsets: Mapping[Partition, int], timeout: float) -> None:
        self._ask("commit")
        self.commits.append(dict(offsets))

    def commit_async(self, offsets: Mapping[Partition, int], done: Callable[[Any], None]) -> None:
        self._ask("commit_async")
        self.commits.append(dict(offsets))
        self.answers.append(done)

    def pause(self) -> None:
        self._ask("pause")

    def resume(self) -> None:
        self._ask("resume")

    def connected(self) -> bool:
        return True

    def settled(self) -> bool:
        return True

    def no_topic(self) -> str | None:
        return None

    def end_offset(self, _: Partition) -> int | None:
        return self.end

    def stable_end(self, _: Partition) -> int | None:
        return self.end

    def positions(self) -> dict[Partition, int]:
        return self.at

    def finished(self) -> bool:
        return self.is_finished

    def group_metadata(self) -> Any:
        return None

    def close(self, timeout: float) -> None:
        self._ask("close")


class Pipe:
    """A fake `Pipeline`: accepts every batch at once and ignores it."""

    def __init__(self) -> None:
        self.stages: tuple[Any, ...] = ()
        self.has_room = True
        self.before: Callable[[str], None] = lambda _: None
        self.calls: list[str] = []
        self.batches: list[MicroBatch] = []

    def start(self) -> None:
        self.calls.append("start")
        self.before("start")

    def demand(self, _: int) -> Demand:
        return Demand(-math.inf)

    def offer(self, batch: MicroBatch) -> bool:
        self.batches.append(batch)
        return True

    def close(self, timeout: float) -> None:
        self.calls.append("close")
        self.before("close")


class Sink:
    """A fake sink that counts `request_commit` calls and records the offsets to keep."""

    def __init__(self, *, commits_offsets: bool = False) -> None:
        self.commits_offsets = commits_offsets
        self.commit_requests = 0
        self.kept: list[RecordRef] = []

    def publish(self, _: object) -> None: ...
    def advance(self) -> None: ...
    def check(self) -> None: ...
    def close(self, timeout: float) -> None: ...

    def request_commit(self) -> None:
        self.commit_requests += 1

    def keep(self, positions: Sequence[RecordRef]) -> None:
        self.kept += positions
