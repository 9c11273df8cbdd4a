"""A model of a consumer group: members, generations, cooperative rebalances, committed offsets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kafka import errors

from worker.core.records import Partition


@dataclass(slots=True)
class Member:
    """A member of the group.

    Attributes:
        seen_at: time of its last heartbeat, in seconds of the world's clock.
        owns: partitions that it has not given back, as it told with its last join.
        assigned: its partitions in this generation.
        joined: whether it takes part in the generation that is being formed.
    """

    seen_at: float
    owns: frozenset[Partition] = frozenset()
    assigned: frozenset[Partition] = frozenset()
    joined: bool = False


@dataclass
class Group:
    """The coordinator's side.

    Attributes:
        partitions: of the input.
        session_timeout, rebalance_timeout: seconds.
        generation: number of the last complete generation.
        forming: whether the group waits for its members to join the next one.
        offsets: committed.
        pending: offsets in transactions that have not ended, by the transaction's number.
        firsts: where a worker began to read each partition, for the whole group.
    """

    partitions: tuple[Partition, ...]
    session_timeout: float
    rebalance_timeout: float
    generation: int = 0
    forming: bool = False
    members: dict[str, Member] = field(default_factory=dict)
    offsets: dict[Partition, int] = field(default_factory=dict)
    pending: dict[int, set[Partition]] = field(default_factory=dict)
    firsts: dict[Partition, int] = field(default_factory=dict)
    _forming_since: float = 0.0

    # -- membership ----------------------------------------------------------------------------

    def enter(self, name: str, now: float) -> None:
        """Become a member, and take part in the next generation."""
        self.members[name] = Member(now)
        self.join(name, (), now)

    def join(self, name: str, owns: Iterable[Partition], now: float) -> None:
        """Take part in the next generation.

        Raises:
            UnknownMemberIdError: the group has removed the member.
        """
        member = self.members.get(name)
        if member is None:
            raise errors.UnknownMemberIdError
        member.owns, member.seen_at = frozenset(owns), now
        if not self.forming:
            self._form(now)
        member.joined = True
        self._complete()

    def leave(self, name: str, now: float) -> None:
        """Give up the membership."""
        if self.members.pop(name, None):
            self._go_on(now)

    def heartbeat(self, name: str, generation: int, now: float) -> bool:
        """Return whether the member has to join again.

        Raises:
            UnknownMemberIdError: the group has removed it.
        """
        member = self.members.get(name)
        if member is None:
            raise errors.UnknownMemberIdError
        member.seen_at = now
        return self.forming or generation != self.generation

    def expire(self, now: float) -> None:
        """Remove members that are silent, or that keep a rebalance waiting."""
        late = self.forming and now - self._forming_since >= self.rebalance_timeout
        dead = [
            name
            for name, member in self.members.items()
            if now - member.seen_at >= self.session_timeout or (late and not member.joined)
        ]
        for name in dead:
            del self.members[name]
        if dead:
            self._go_on(now)

    def _go_on(self, now: float) -> None:
        """Form a generation without a member that is gone; those that have joined wait for it."""
        if not self.forming:
            self._form(now)
        self._complete()

    def _form(self, now: float) -> None:
        self.forming, self._forming_since = True, now
        for member in self.members.values():
            member.joined = False

    def _complete(self) -> None:
        """Assign the partitions once every member has joined.

        A partition whose owner has to give it up is nobody's in this generation: its owner gives
        it back first, and joins again (KIP-429).
        """
        if not self.members or not all(member.joined for member in self.members.values()):
            return
        self.forming = False
        self.generation += 1
        target = self._balanced()
        owners: dict[Partition, set[str]] = {partition: set() for partition in self.partitions}
        for name, member in self.members.items():
            for partition in member.owns:
                owners[partition].add(name)
        for name, member in self.members.items():
            member.assigned = frozenset(p for p in target[name] if owners[p] <= {name})

    def _balanced(self) -> dict[str, set[Partition]]:
        """Return a balanced assignment that leaves as much as possible where it is."""
        names = sorted(self.members)
        most = -(-len(self.partitions) // len(names))
        target: dict[str, set[Partition]] = {name: set() for name in names}
        free = []
        for partition in self.partitions:
            holders = [n for n in names if partition in self.members[n].owns]
            if holders and len(target[holders[0]]) < most:
                target[holders[0]].add(partition)
            else:
                free.append(partition)
        for partition in free:
            least = min(names, key=lambda name: len(target[name]))
            target[least].add(partition)
        return target

    # -- offsets -------------------------------------------------------------------------------

    def check(self, name: str, generation: int) -> None:
        """Return if a commit of this member and generation is accepted.

        Raises:
            CommitFailedError: it is not.
        """
        if name not in self.members or generation != self.generation:
            raise errors.CommitFailedError("the member or its generation is over")

    def commit(self, name: str, generation: int, offsets: Mapping[Partition, int]) -> None:
        """Commit offsets outside of transactions; raises as `check`."""
        self.check(name, generation)
        self._store(offsets)

    def expect(self, transaction: int | None, offsets: Mapping[Partition, int]) -> None:
        """Note offsets that a transaction will commit, or not."""
        self.pending.setdefault(transaction or 0, set()).update(offsets)

    def settle(self, transaction: int, offsets: Mapping[Partition, int]) -> None:
        """Commit a transaction's offsets; none if it was aborted."""
        self.pending.pop(transaction, None)
        self._store(offsets)

    def _store(self, offsets: Mapping[Partition, int]) -> None:
        for partition, offset in offsets.items():
            self.offsets[partition] = offset

    def stable(self, partition: Partition) -> bool:
        """Return whether no open transaction holds an offset of the partition."""
        return not any(partition in one for one in self.pending.values())
