"""Tracks whether the group still counts this worker as a member.

Owns: the time of the group's last confirmation; the client's coordinator.
Thread: the client's IO thread writes, any thread reads. Each field is one plain value that is
replaced whole, so no lock is needed.
Must not import: inference, runtime.

A worker that was stopped for longer than its session timeout (SIGSTOP, a frozen machine) resumes in
the belief that it still owns its partitions, while another worker has them. Walked through: at 0 s
the last heartbeat is sent and answered; at 1 s the process stops; at 6 s the group reassigns its
partitions; at 20 s it resumes, and its publish thread continues where it was. Only the response to
the next heartbeat would show it. So the worker does the broker's computation: once more than the
session timeout has passed since it *sent* the last confirmed request, its membership is
unconfirmed, and it publishes nothing until the group has answered.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kafka.errors import (
    AuthorizationError,
    FencedInstanceIdError,
    KafkaTimeoutError,
    RebalanceInProgressError,
)

from worker.clock import Clock
from worker.errors import BrokerAway
from worker.kafka_io.internals import (
    UNKNOWN_MEMBER_ID,
    ConsumerCoordinator,
    compares_epochs,
    coordinator_of,
)
from worker.kafka_io.static_leader import assigned_partitions, is_earlier_self
from worker.kafka_io.translation import translate


class Membership:
    """The membership of one consumer.

    Args:
        consumer: the library's; it has not polled yet.
        session_timeout: seconds.
        clock: measures the time since the last confirmation.

    Attributes:
        confirmed_at: when the last confirmed request was sent, seconds of the monotonic clock.
        refusal: the group's refusal, if it is final.
    """

    def __init__(self, consumer: Any, session_timeout: float, clock: Clock) -> None:
        self._session_timeout, self._clock = session_timeout, clock
        self.confirmed_at = clock.monotonic()
        self.refusal: Exception | None = None
        # The client makes its coordinator and offers no hook. The coordinator starts with the first
        # poll, so its class can still be replaced here.
        coordinator = coordinator_of(consumer)
        coordinator.__class__ = _Coordinator
        coordinator.membership = self

    def check(self) -> None:
        """Return unless the group has refused this worker.

        Raises:
            Fenced, AccessDenied: the refusal is final.
        """
        if self.refusal is not None:
            raise translate(self.refusal)

    def require_confirmed(self) -> None:
        """Return only while the membership is confirmed.

        Raises:
            BrokerAway: a confirmation is overdue: try again.
            Fenced, AccessDenied: as `check`.
        """
        self.check()
        silent = self._clock.monotonic() - self.confirmed_at
        if silent > self._session_timeout:
            raise BrokerAway(
                f"the group has not confirmed this worker for {silent:.0f} s (session timeout "
                f"{self._session_timeout:g} s)"
            )


class _Coordinator(ConsumerCoordinator):  # type: ignore[misc]
    """The client's coordinator, with six gaps closed.

    Attributes:
        on_committed: called with the group's offsets before the client takes positions from them.
            It drops their metadata.
        own_offsets: returns those of the group's offsets that count; it comes first.
    """

    membership: Membership
    own_offsets: Callable[[Mapping[Any, Any]], Mapping[Any, Any]] | None = None
    on_committed: Callable[[Mapping[Any, Any]], None] | None = None
    _leads_untold = False

    def need_rejoin(self) -> bool:
        """Return True also while a join is unfinished.

        The leader joins again when the topic has more partitions. It stores their number as soon as
        it assigns them, and from then on has no reason to join. If the poll that began the join
        returned before its end, the assignment would not be taken over: the member would send no
        heartbeats until its session ends.
        """
        return self._join_task is not None or super().need_rejoin()

    def _handle_heartbeat_response(self, response: Any, send_time: float) -> None:
        """Record when a confirmed request was sent: the client counts from its response.

        The client only logs a refusal, and ends a fenced member's heartbeats without notice.
        """
        try:
            super()._handle_heartbeat_response(response, send_time)
        except RebalanceInProgressError:  # the broker sends it to members only
            self.membership.confirmed_at = send_time
            raise
        except (AuthorizationError, FencedInstanceIdError) as error:
            self.membership.refusal = error
            raise
        self.membership.confirmed_at = send_time

    def _process_join_group_response(self, response: Any, send_time: float) -> Any:
        """Note whether this member leads the group, although the broker names its earlier id."""
        joined = super()._process_join_group_response(response, send_time)
        self._leads_untold = is_earlier_self(
            response.leader, response.member_id, self.group_instance_id
        )
        return joined

    def _process_sync_group_response(self, response: Any, send_time: float) -> Any:
        """Count the end of a join as a confirmation."""
        assignment = super()._process_sync_group_response(response, send_time)
        self.membership.confirmed_at = send_time
        return assignment

    def _handle_offset_fetch_response(self, response: Any) -> Any:
        """Report the group's offsets with their metadata."""
        offsets = super()._handle_offset_fetch_response(response)
        if self.own_offsets is not None:
            offsets = self.own_offsets(offsets)
        if self.on_committed is not None:
            self.on_committed(offsets)
        return offsets

    async def refresh_committed_offsets_if_needed_async(
        self, timeout_ms: float | None = None
    ) -> bool:
        """Take positions from the group's offsets, with the epochs of their leaders.

        The client drops the epochs. It would begin in the middle of other records if the log was
        truncated and has grown again since, because nobody read the partition meanwhile. A broker
        that can't compare the epoch with its log gets none: the client would ask it without end.
        """
        missing = set(self._subscription.missing_fetch_positions())
        try:
            offsets = await self.fetch_committed_offsets_async(missing, timeout_ms=timeout_ms)
        except KafkaTimeoutError:
            return False
        with_epochs = compares_epochs(self._manager)
        for partition, offset in offsets.items():
            self._subscription.seek(partition, offset if with_epochs else offset.offset)
        return True

    def reset_generation(self, member_id: str = UNKNOWN_MEMBER_ID) -> None:
        """Prepare the next join again when the membership is lost, even during a join.

        The client prepares a join once and then tries until it succeeds; `on_partitions_lost` is
        part of that. Walked through: a rebalance begins, the client prepares its join as a member,
        and before the join succeeds the group drops it. Another worker takes the partitions, works
        on them and leaves. The next try returns them to this worker, and the client believes that
        it never lost them: it reads on from its old position, and accepts what is in flight.
        """
        super().reset_generation(member_id)
        self.rejoining = False
        # The client also remembers the partitions that it owned. The next join would claim them
        # against their present owner, and the leader may believe either. Both would work on them
        # until one has drained.
        for assignor in self._assignors.values():
            assignor.member_assignment = None

    async def _on_join_complete_async(self, *joined: Any) -> None:
        """Drop responses to requests from before the rebalance; watch the topics as the leader.

        The client keeps a fetch of committed offsets that outlasts its poll, by its set of
        partitions, for a later poll to take up. If a rebalance comes between, that poll may come
        much later: the same partitions return, and would be read again from their old offsets.
        """
        self._offset_fetch_futures.clear()
        if self._leads_untold:
            self._is_leader = True
            # The client joins again, as the leader, if the topics have other partitions.
            self._assignment_snapshot = await assigned_partitions(
                self._manager, self.coordinator_id, self.group_id, self._metadata_snapshot
            )
        await super()._on_join_complete_async(*joined)
