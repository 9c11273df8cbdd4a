"""The consumer's side of the model: what `KafkaSource` is in a real worker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from kafka import errors

from tests.simulation.broker import Broker
from tests.simulation.network import Network
from worker.core.records import Partition, RawRecord, RecordRef
from worker.errors import BrokerAway, StreamlabelError
from worker.kafka_io.listener import RebalanceHandler, StartFrom
from worker.kafka_io.translation import translate

_HEARTBEAT = 1.0  # seconds
_PAUSE = 0.1  # seconds between two looks, at least: an idle task costs turns


class Membership(NamedTuple):
    """The client's snapshot of its membership."""

    member_id: str
    generation_id: int


class SimulatedSource:
    """One member of the group. All its methods run on the task that polls.

    Args:
        name: of the worker; each membership has an id of its own.
        broker, network: what it talks to.
        handler: called at each change of the assignment.
        start: where a group without offsets begins.
    """

    def __init__(
        self,
        name: str,
        broker: Broker,
        network: Network,
        handler: RebalanceHandler,
        start: StartFrom,
    ) -> None:
        self._name, self._broker, self._group = name, broker, broker.group
        self._network, self._world = network, network.world
        self._handler, self._start = handler, start
        self._ids, self._epochs = itertools.count(1), itertools.count(1)
        self._id = ""
        self._generation = -1
        self._joined = False  # the next generation, which is being formed
        self._joined_after = 0
        self._rejoin = False
        self._heard_at = self._world.now
        self._beats_at = 0.0
        self._position: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._requests: list[tuple[dict[Partition, int], Membership, Callable[[Any], None]]] = []
        self._answers: list[tuple[Callable[[Any], None], StreamlabelError | None]] = []
        self.epochs: dict[Partition, int] = {}
        self.woken: Callable[[], None] = lambda: None

    # -- the client's own thread ------------------------------------------------------------------

    def beat(self, now: float) -> None:
        """Send a heartbeat if one is due, as the client's thread does."""
        if not self._id or now < self._beats_at:
            return
        self._beats_at = now + _HEARTBEAT
        if not self._network.reaches():
            return
        try:
            rejoin = self._group.heartbeat(self._id, self._generation, now)
            if now < self._network.silent_until:
                return  # the group has heard of it, and its answer is lost
            self._rejoin = self._rejoin or (rejoin and not self._joined)
            self._heard_at = now
        except errors.UnknownMemberIdError:
            self._forget_membership()

    def send_commit(self) -> bool:
        """Send the oldest asynchronous commit; return whether there was one."""
        if not self._requests:
            return False
        offsets, member, done = self._requests.pop(0)
        error: StreamlabelError | None = None
        try:
            self._network.request(lambda: self._group.commit(*member, offsets))
        except errors.KafkaError as failure:
            error = translate(failure)
        self._answers.append((done, error))
        return True

    @property
    def has_commit(self) -> bool:
        """Return whether an asynchronous commit waits to be sent."""
        return bool(self._requests)

    def _forget_membership(self) -> None:
        self._id, self._generation, self._joined, self._rejoin = "", -1, False, False

    # -- polling -----------------------------------------------------------------------------------

    def poll(self, timeout: float, max_records: int) -> list[RawRecord]:
        self._world.wait(0)
        self._answer_commits()
        self._take_part()
        records = self._fetch(max_records)
        if not records:
            self._world.wait(max(_PAUSE, timeout))
        return records

    def _answer_commits(self) -> None:
        answers, self._answers = self._answers, []
        for done, error in answers:
            done(error)

    def _take_part(self) -> None:
        """Join the group, or take over the assignment of a generation that is complete."""
        now = self._world.now
        if not self._network.reaches():
            return
        if not self._id:
            if self.epochs:
                self._lose(list(self.epochs))
            self._id = f"{self._name}-{next(self._ids)}"
            self._heard_at = now
            self._joined_after = self._group.generation
            self._group.enter(self._id, now)
            self._rejoin, self._joined = False, True
        elif self._rejoin:
            self._join(now)
        if self._joined and self._group.generation > self._joined_after:
            if self._group.forming:  # another rebalance has begun since
                self._join(now)
            else:
                self._take_over()

    def _join(self, now: float) -> None:
        self._joined_after = self._group.generation
        try:
            self._group.join(self._id, self.epochs, now)
        except errors.UnknownMemberIdError:
            self._forget_membership()
        else:
            self._rejoin, self._joined = False, True

    def _take_over(self) -> None:
        member = self._group.members.get(self._id)
        if member is None:
            self._forget_membership()
            return
        self._joined, self._generation = False, self._group.generation
        self._heard_at = self._world.now
        revoked = sorted(self.epochs.keys() - member.assigned)
        added = sorted(member.assigned - self.epochs.keys())
        if revoked:
            self._world.tell(f"{self._id} gives back {revoked}")
            self._handler.on_revoked(revoked)
            self._drop(revoked)
            self._rejoin = bool(self._id)
        if added and self._id:
            self._world.tell(f"{self._id} gets {added}")
            fresh = {partition: next(self._epochs) for partition in added}
            self.epochs = self.epochs | fresh
            self._handler.on_assigned(fresh)

    def _lose(self, lost: list[Partition]) -> None:
        self._world.tell(f"{self._name} has lost {lost}")
        self._drop(lost)
        self._handler.on_lost(lost)

    def _drop(self, partitions: list[Partition]) -> None:
        gone = set(partitions)
        self.epochs = {p: epoch for p, epoch in self.epochs.items() if p not in gone}
        self._position = {p: at for p, at in self._position.items() if p not in gone}
        self._paused -= gone

    def _fetch(self, most: int) -> list[RawRecord]:
        records: list[RawRecord] = []
        if not self._network.reaches():
            return records
        self._find_positions()
        for partition in sorted(self.epochs):
            at = self._position.get(partition)
            if at is None or partition in self._paused:
                continue
            at = self._skip_deleted(partition, at)
            log = self._broker.logs.get(partition, ())
            while at < len(log) and len(records) < most:
                payload = log[at].payload
                if payload is not None:
                    ref = RecordRef(*partition, at, self.epochs[partition])
                    records.append(payload.polled(ref, self._world.now))
                at += 1
            self._position[partition] = at
        return records

    def _find_positions(self) -> None:
        if self._position.keys() >= self.epochs.keys():
            return
        unknown = [p for p in sorted(self.epochs) if p not in self._position]
        begin: dict[Partition, int] = {}
        for partition in unknown:
            if not self._group.stable(partition):
                continue
            committed = self._group.offsets.get(partition)
            if committed is not None:
                self._position[partition] = committed
                self._group.firsts.setdefault(partition, committed)
            else:
                first = self._broker.log_start.get(partition, 0)
                end = self._broker.end(partition)
                begin[partition] = first if self._start == "earliest" else end
        if begin:
            try:
                begun = self._handler.on_begun(begin, self._start)
            except BrokerAway:
                return
            self._position |= begun
            for partition, at in begun.items():
                self._group.firsts.setdefault(partition, at)

    def _skip_deleted(self, partition: Partition, at: int) -> int:
        """Continue behind the records that retention removed before they were polled."""
        first = self._broker.log_start.get(partition, 0)
        if at >= first:
            return at
        fresh = {partition: next(self._epochs)}
        self.epochs = self.epochs | fresh
        self._handler.on_assigned(fresh)
        self._handler.on_skipped(partition, range(at, first))
        return first

    # -- the group's offsets -----------------------------------------------------------------------

    def commit(self, offsets: Mapping[Partition, int], timeout: float) -> None:
        self._world.wait(0.005)
        try:
            self._network.request(lambda: self._group.commit(*self.group_metadata(), offsets))
        except errors.KafkaError as error:
            raise translate(error) from error

    def commit_async(self, offsets: Mapping[Partition, int], done: Callable[[Any], None]) -> None:
        self._requests.append((dict(offsets), self.group_metadata(), done))
        self.woken()

    def current(self, ref: RecordRef) -> bool:
        if self.epochs.get(Partition(ref.topic, ref.partition)) != ref.epoch:
            return False
        silent = self._world.now - self._heard_at
        if silent > self._group.session_timeout:
            raise BrokerAway(f"the group has not confirmed this worker for {silent:.1f} s")
        return True

    def group_metadata(self) -> Membership:
        return Membership(self._id, self._generation)

    def note(self, _: Partition) -> str:
        return ""

    def positions(self) -> dict[Partition, int]:
        return dict(self._position)

    # -- the rest of a source ----------------------------------------------------------------------

    def pause(self) -> None:
        self._paused = set(self.epochs)

    def resume(self) -> None:
        self._paused = set()

    def hold(self, ref: RecordRef) -> None:
        raise NotImplementedError(f"no record waits for a schema here: {ref}")

    def release(self, partition: Partition) -> None:
        raise NotImplementedError(f"no record waits for a schema here: {partition}")

    def connected(self) -> bool:
        return self._network.reaches()

    def settled(self) -> bool:
        return bool(self._id) and not self._joined

    def no_topic(self) -> str | None:
        return None

    def end_offset(self, partition: Partition) -> int | None:
        return self._broker.end(partition)

    def stable_end(self, partition: Partition) -> int | None:
        return self._broker.end(partition)

    def finished(self) -> bool:
        return False

    def close(self, timeout: float) -> None:
        """Give back everything and leave."""
        if self.epochs:
            gone = sorted(self.epochs)
            self._handler.on_revoked(gone)
            self._drop(gone)
        if self._id and self._network.reaches():
            self._group.leave(self._id, self._world.now)
        self._forget_membership()
