"""Defects that the worker once had, put back one by one: a state machine finds each."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

from tests.machines.test_offsets import Offsets
from tests.machines.test_rebalance import Assignments
from tests.machines.test_sinks import Sink, Transactions
from tests.simulation.bugs import planted
from worker.core.offsets import OffsetTracker
from worker.core.records import RecordRef
from worker.runtime.rebalance import Rebalance

_SEARCH = settings(
    max_examples=1_000,
    stateful_step_count=40,
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


def finds(machine: type[RuleBasedStateMachine]) -> bool:
    """Return whether the machine breaks."""
    try:
        run_state_machine_as_test(machine, settings=_SEARCH)
    except Exception:  # noqa: BLE001 - any failure of a rule or a promise
        return True
    return False


@pytest.mark.parametrize(
    ("bug", "machine"),
    [
        ("resend_lost_in_doubt", Sink),
        ("refusal_skips_the_rest", Sink),
        ("memory_behind_a_head", Offsets),
        ("position_over_an_open_record", Offsets),
        ("lost_reply_taken_for_failure", Transactions),
        ("failed_transaction_taken_for_committed", Transactions),
        ("no_drain_on_revoke", Assignments),
    ],
)
def test_a_planted_bug_breaks_its_machine(bug: str, machine: type[RuleBasedStateMachine]) -> None:
    with planted(bug):
        assert finds(machine)


def test_a_last_step_that_is_skipped_after_a_fault_breaks_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Partitions stayed tracked when the drain or the commit before their release had failed."""

    def unguarded(self: Any, partitions: Iterable[Any]) -> None:
        revoked = list(partitions)
        deadline = self._clock.monotonic() + self._drain_timeout
        self._offsets.forget(entry.record.ref for entry in self._batcher.discard(revoked))
        self._drain(revoked, deadline)
        self._commits.commit_by(deadline)
        self._release(revoked, "revoked")

    monkeypatch.setattr(Rebalance, "on_revoked", unguarded)
    assert finds(Assignments)


def test_quadratic_work_at_a_rebalance_breaks_its_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each record that was given back was searched among all."""
    forget: Callable[..., None] = OffsetTracker.forget

    def one_by_one(self: Any, refs: Iterable[RecordRef]) -> None:
        for ref in list(refs):
            log = self._current(ref)
            if log is not None:
                log.queue = deque(sorted(log.queue, key=lambda tracked: tracked.number))
            forget(self, [ref])

    monkeypatch.setattr(OffsetTracker, "forget", one_by_one)
    assert finds(Offsets)


@pytest.mark.parametrize("name", ["tracks", "assign"])
def test_an_epoch_that_is_ignored_breaks_its_machine(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    if name == "tracks":

        def current(self: Any, ref: RecordRef) -> Any:
            return next((log for p, log in self._logs.items() if p == ref[:2]), None)

        monkeypatch.setattr(OffsetTracker, "_current", current)
    else:
        assign = OffsetTracker.assign

        def keeping(self: Any, partition: Any, epoch: int) -> None:
            if partition not in self._logs:
                assign(self, partition, epoch)
            self._logs[partition].epoch = epoch

        monkeypatch.setattr(OffsetTracker, "assign", keeping)
    assert finds(Offsets)
