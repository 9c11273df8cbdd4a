"""Faults of the brokers' disks and logs. The harness's thread begins them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from tests.chaos.administrator import Administrator, PartitionLayout, Refused
from tests.chaos.agenda import RETRY_S, Agenda
from tests.chaos.arena import Arena
from tests.chaos.cluster import Cluster
from tests.chaos.lives import Lives
from tests.chaos.plan import Fault

# Seconds to wait, or a step that is tried until it returns True.
Step = float | Callable[[], bool]


class StorageFaults:
    """Faults that a broker's log suffers, and not only its process."""

    _administrator: Administrator
    _agenda: Agenda
    _arena: Arena
    _broker: Callable[..., bool]
    _cluster: Cluster
    _down: Any
    _end_life: Callable[[], bool]
    _lives: Lives | None

    def _disk_full(self, fault: Fault) -> bool:
        """Leave some bytes to the largest log of the run, so that a batch may be stored in part."""
        names = self._arena.names
        topics = (names.input, *self._arena.outcome_topics)

        def fill(node: Any) -> None:
            node.fill_disk(node.log_size(topics) + int(fault.size))

        return self._broker(fault, fill, lambda node: node.start())

    def _unclean_election(self, fault: Fault) -> bool:
        """Let a partition of the input lose the records that its leader took alone."""
        if self._down is not None or self._cluster.kafka is None or self._lives is None:
            return False
        nodes, topic = self._cluster.kafka.nodes, self._arena.names.input
        try:
            number = fault.target % self._administrator.partitions(topic)
            layout = self._administrator.layout(topic, number)
        except Refused:
            return False
        if len(layout.in_sync) < len(nodes):
            return False
        self._down = nodes[layout.leader - 1]  # ids begin with 1
        self._follow(self._lose(number, layout, fault.duration))
        return True

    def _lose(self, number: int, layout: PartitionLayout, seconds: float) -> Iterator[Step]:
        """Take the steps of an election whose winner lacks records.

        Args:
            number: of the partition.
            layout: before.
            seconds: for which the leader takes records alone.
        """
        assert self._lives is not None
        assert self._cluster.kafka is not None
        nodes, admin = self._cluster.kafka.nodes, self._administrator
        topic, group = self._arena.names.input, self._arena.names.group
        leader, late = layout.leader, next(r for r in layout.replicas if r != layout.leader)
        yield _tried(lambda: admin.allow_loss(topic, allowed=True))
        # The third broker keeps the controllers' majority, and must not become leader.
        yield _tried(lambda: admin.move(topic, number, [leader, late]))
        nodes[late - 1].kill()
        yield self._in_sync(number, {leader})
        yield seconds
        yield self._end_life
        first = self._arena.next_number
        nodes[leader - 1].kill()
        nodes[late - 1].start()
        yield lambda: admin.layout(topic, number).leader == late
        elected: list[int] = []
        yield _tried(lambda: elected.append(admin.layout(topic, number).epoch))
        self._arena.go_on()
        nodes[leader - 1].start()
        yield self._in_sync(number, {leader, late})
        yield _tried(lambda: admin.move(topic, number, layout.replicas))
        yield self._in_sync(number, set(layout.replicas))
        yield _tried(lambda: admin.allow_loss(topic, allowed=False))
        # An offset of the lost log says nothing about the records that have its places now.
        yield lambda: admin.committed_epoch(group, topic, number) >= elected[0]
        self._lives.begin(first)
        self._down = None

    def _in_sync(self, number: int, ids: set[int]) -> Step:
        topic = self._arena.names.input
        return lambda: self._administrator.layout(topic, number).in_sync == ids

    def _follow(self, steps: Iterator[Step]) -> None:
        """Take the next step, and then the others."""
        step = next(steps, None)
        if callable(step):
            self._try(step, steps)
        elif step is not None:
            self._agenda.after(step, lambda: self._follow(steps))

    def _try(self, step: Callable[[], bool], rest: Iterator[Step]) -> None:
        """Take a step as soon as it succeeds, and then the others."""
        try:
            done = step()
        except Refused:
            done = False
        later = (lambda: self._follow(rest)) if done else (lambda: self._try(step, rest))
        self._agenda.after(0.0 if done else RETRY_S, later)


def _tried(change: Callable[[], None]) -> Step:
    def step() -> bool:
        change()
        return True

    return step
