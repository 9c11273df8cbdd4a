"""Whether this worker still is a member of its group: what the client knows and does not tell.

The client's IO thread writes, any thread asks; each field is one plain value that is replaced
whole, which needs no lock. Imports no inference and no runtime.

A worker that was stopped for longer than its session timeout (SIGSTOP, a frozen machine) wakes up
in the belief that its partitions are its own, while another has them. Walked through: at 0 s the
last heartbeat is sent and answered; at 1 s the process stops; at 6 s the group gives its
partitions away; at 20 s it wakes, and its publish thread, which knows of nothing, goes on where it
stood. Only the answer to the next heartbeat would tell. So the worker does the broker's sum: when
more than the session timeout has passed since it *asked* for the last good answer, it is in doubt,
and publishes nothing until the group has answered.
"""

from __future__ import annotations

from typing import Any

from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.errors import AuthorizationError, FencedInstanceIdError, RebalanceInProgressError
from kafka.protocol.consumer import UNKNOWN_MEMBER_ID

from worker.clock import Clock
from worker.errors import BrokerAway
from worker.kafka_io.translation import translate


class Membership:
    """Answers for one consumer's membership, in seconds of the monotonic clock."""

    def __init__(self, consumer: Any, session_timeout: float, clock: Clock) -> None:
        self._session_timeout, self._clock = session_timeout, clock
        self.confirmed_at = clock.monotonic()
        self.refusal: Exception | None = None
        # The client makes its coordinator itself and offers no hook. Nothing runs in it yet: it
        # begins with the first poll.
        coordinator = consumer._coordinator  # noqa: SLF001 - there is no public way
        coordinator.__class__ = _Coordinator
        coordinator.membership = self

    def check(self) -> None:
        """Return unless the group has refused this worker.

        Raises:
            Fenced, AccessDenied: for good.
        """
        if self.refusal is not None:
            raise translate(self.refusal)

    def assure(self) -> None:
        """Return only while the group counts this worker in.

        Raises:
            BrokerAway: its answer is overdue: try again.
            Fenced, AccessDenied: as `check`.
        """
        self.check()
        silent = self._clock.monotonic() - self.confirmed_at
        if silent > self._session_timeout:
            raise BrokerAway(f"the group has not confirmed this worker for {silent:.0f} s")


class _Coordinator(ConsumerCoordinator):  # type: ignore[misc]
    """The client's coordinator, which lets four things pass in silence."""

    membership: Membership

    def need_rejoin(self) -> bool:
        """Also where a join has begun that nobody has taken the end of.

        The leader joins again when the topic has more partitions. It notes their number as soon as
        it assigns them, and has no reason to join from then on. If the poll that began the join
        returned before its end, the assignment would lie there, without heartbeats, until the
        session is over.
        """
        return self._join_task is not None or super().need_rejoin()

    def _handle_heartbeat_response(self, response: Any, send_time: float) -> None:
        """Note when a good answer was asked for: the client counts from when it came in.

        A refusal the client only logs, and a fenced member's heartbeats end without a word.
        """
        try:
            super()._handle_heartbeat_response(response, send_time)
        except RebalanceInProgressError:  # a member is told so, and no one else
            self.membership.confirmed_at = send_time
            raise
        except (AuthorizationError, FencedInstanceIdError) as error:
            self.membership.refusal = error
            raise
        self.membership.confirmed_at = send_time

    def _process_sync_group_response(self, response: Any, send_time: float) -> Any:
        """The end of a join is an answer as well."""
        assignment = super()._process_sync_group_response(response, send_time)
        self.membership.confirmed_at = send_time
        return assignment

    def reset_generation(self, member_id: str = UNKNOWN_MEMBER_ID) -> None:
        """The membership is lost: prepare the next join anew, even if it is lost during one.

        The client prepares a join once and then tries until it is in; `on_partitions_lost` is
        part of that. Walked through: a rebalance begins, the join is prepared while we are a
        member, and before it is through the group drops us. Another worker takes our partitions,
        works on them and leaves; the next try gives them back to us, and the client takes them
        for never gone: it reads on from its old position, and what was in flight still counts.
        """
        super().reset_generation(member_id)
        self.rejoining = False
        # Nor does it forget what it owned: the next join would claim it, against the one who has
        # it now, and the leader may believe either. Both would work on it until one has drained.
        for assignor in self._assignors.values():
            assignor.member_assignment = None

    async def _on_join_complete_async(self, *joined: Any) -> None:
        """Begin without answers to what was asked before.

        A look for committed offsets that outlasts its poll is kept under its set of partitions for
        the next one to take up. Where a rebalance comes between, that next one may be any time
        later: the same partitions come back, and would be read again from where they then stood.
        """
        self._offset_fetch_futures.clear()
        await super()._on_join_complete_async(*joined)
