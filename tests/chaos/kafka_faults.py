"""Faults that an administrator of the cluster causes. The harness's thread begins them.

They begin only while all brokers are up, so that a request seldom waits. A refused one is repeated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.chaos.administrator import Administrator, Refused
from tests.chaos.agenda import Agenda
from tests.chaos.arena import Arena
from tests.chaos.plan import Fault
from worker.settings import Settings


class KafkaFaults:
    """Faults of topics, of quotas and of the group's coordinator.

    Args:
        servers: addresses without a proxy.

    Attributes:
        refusal: the cluster's answer to the last change, if it refused it; else empty.
    """

    _agenda: Agenda
    _arena: Arena
    _down: Any
    _broker_restart: Callable[..., bool]

    def __init__(self, servers: str) -> None:
        self._administrator = Administrator(servers)
        self._grows = self._limits = False
        self.refusal = ""

    def _partitions_added(self, fault: Fault) -> bool:
        if self._grows:
            return False
        self._grows = self._done(lambda: self._grow_input(fault.duration))
        return self._grows

    def _grow_input(self, later: float) -> None:
        name = self._arena.names.input
        number = self._administrator.partitions(name) + 1
        self._administrator.grow(name, number)
        self._agenda.after(later, lambda: self._grow_outcomes(number))

    def _grow_outcomes(self, number: int) -> None:
        def grow() -> None:
            for topic in self._arena.outcome_topics:
                self._administrator.grow(topic, number)

        def grown() -> None:
            self._grows = False

        what = f"outcome topics with {number} partitions"
        self._agenda.until_done(what, lambda: self._done(grow), grown)

    def _retention(self, fault: Fault) -> bool:
        names = self._arena.names
        return self._done(
            lambda: self._administrator.overtake(
                names.group, names.input, fault.target, int(fault.size)
            )
        )

    def _coordinator_moved(self, fault: Fault) -> bool:
        found: list[int] = []
        group = self._arena.names.group
        if not self._done(lambda: found.append(self._administrator.coordinator(group))):
            return False
        return self._broker_restart(fault, found[0] - 1)  # ids begin with 1

    def _producer_quota(self, fault: Fault) -> bool:
        if self._limits:
            return False
        self._limits = self._limit(fault.size)
        if self._limits:
            self._agenda.after(fault.duration, self._end_quota)
        return self._limits

    def _end_quota(self) -> None:
        def ended() -> None:
            self._limits = False

        self._agenda.until_done("the producer quota's removal", lambda: self._limit(None), ended)

    def _limit(self, bytes_a_second: float | None) -> bool:
        client = Settings().kafka.client_id
        return self._done(lambda: self._administrator.limit_producers(client, bytes_a_second))

    def _done(self, change: Callable[[], None]) -> bool:
        if self._down is not None:
            return False
        try:
            change()
        except Refused as error:
            self.refusal = str(error)
            return False
        self.refusal = ""
        return True
