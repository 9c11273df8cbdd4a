"""Faults of passwords and certificates that are replaced while workers run.

The harness's thread runs them. Each comes into force at the brokers first or in the workers' files
first, and all connections of the workers end then, so that they sign in again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.chaos.administrator import Administrator
from tests.chaos.agenda import Agenda
from tests.chaos.cluster import Cluster
from tests.chaos.plan import Fault
from tests.chaos.security import USER


class SecurityFaults:
    """Faults of secrets."""

    _agenda: Agenda
    _cluster: Cluster
    _administrator: Administrator
    _done: Callable[[Callable[[], None]], bool]
    _down: Any
    _renewing: bool = False

    def _password_rotated(self, fault: Fault) -> bool:
        """Change the user's password, so much earlier or later than the workers' file."""
        security = self._cluster.security
        if security is None or self._renewing or self._down is not None:
            return False
        security.make_password()
        if fault.size < 1 / 2:
            first, then = self._change_password, security.write_password
        else:
            first, then = security.write_password, self._change_password
        return self._renew(fault, first, then)

    def _change_password(self) -> None:
        if self._cluster.security:
            self._administrator.set_password(USER, self._cluster.security.password)

    def _certificate_rotated(self, fault: Fault) -> bool:
        """Change the brokers' certificate and its authority.

        Workers trust the old authority and the new one for the time between, or only the old one.
        """
        security = self._cluster.security
        if security is None or self._renewing or self._down is not None:
            return False
        security.make_pair()
        if fault.size < 1 / 2:
            security.trust(old=True)
        return self._renew(fault, self._change_pair, lambda: security.trust(old=False))

    def _change_pair(self) -> None:
        if self._cluster.security and self._cluster.kafka:
            for number in range(1, len(self._cluster.kafka.nodes) + 1):
                self._administrator.configure_broker(number, self._cluster.security.keystores)

    def _renew(self, fault: Fault, first: Callable[[], None], then: Callable[[], None]) -> bool:
        def ended() -> None:
            self._renewing = False

        def finish() -> None:
            self._agenda.until_done(f"{fault.kind} on both sides", lambda: self._step(then), ended)

        self._renewing = True  # a change that failed may have been applied to some brokers
        self._agenda.until_done(
            f"{fault.kind} on one side",
            lambda: self._step(first),
            lambda: self._agenda.after(fault.duration, finish),
        )
        return True

    def _step(self, change: Callable[[], None]) -> bool:
        if not self._done(change):
            return False
        if self._cluster.wires:
            self._cluster.wires.hang_up()
        return True
