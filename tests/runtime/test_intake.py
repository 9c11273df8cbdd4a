"""Intake: a damaged input, and unreadable records that are held back."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import Any

import pytest

from tests.support.clocks import HandClock
from tests.support.records import raw
from worker.core.pace import Demand
from worker.core.records import Completion, Encoded, MicroBatch, Partition, RawRecord
from worker.core.state import State
from worker.errors import InputDamaged, StreamUnreadable
from worker.metrics import Metrics
from worker.runtime.assembly import build_in_flight, build_worker
from worker.runtime.context import RecordPath, WorkerContext
from worker.runtime.formats import plain_formats
from worker.runtime.progress import Progress
from worker.runtime.rebalance import RebalanceListener
from worker.settings import Settings, load

Polled = list[RawRecord] | Exception


class ScriptedSource:
    """Returns scripted polls, and notes how long it was asked to wait."""

    def __init__(self, *polls: Polled) -> None:
        self.polls = list(polls)
        self.paused = 0
        self.timeouts: list[float] = []
        self.committed: dict[Partition, int] = {}

    def poll(self, timeout: float, max_records: int) -> list[RawRecord]:
        self.timeouts.append(timeout)
        records = self.polls.pop(0) if self.polls else []
        if isinstance(records, Exception):
            raise records
        return records

    def pause(self) -> None:
        self.paused += 1

    def commit_async(self, offsets: Any, done: Any) -> None:
        self.committed |= offsets
        done(None)

    def connected(self) -> bool:
        return True

    def settled(self) -> bool:
        return True

    def no_topic(self) -> None:
        return None

    def end_offset(self, _: Partition) -> None:
        return None

    stable_end = end_offset

    def positions(self) -> dict[Partition, int]:
        return {}

    def finished(self) -> bool:
        return False


class AcceptingPipeline:
    """Accepts every batch."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.has_room, self.stages = True, ()
        self.wanted = Demand(-math.inf)

    def demand(self, _: int) -> Demand:
        return self.wanted

    def offer(self, batch: MicroBatch) -> bool:
        self.taken += [entry.record.ref.offset for entry in batch.entries]
        return True


class SilentSink:
    commits_offsets = False

    def request_commit(self) -> None: ...
    def keep(self, _: object) -> None: ...
    def check(self) -> None: ...


class Rig:
    """A worker that is stepped by hand."""

    def __init__(self, *polls: Polled, settings: Settings | None = None) -> None:
        self.clock, metrics = HandClock(), Metrics()
        progress = Progress(120, metrics, self.clock)
        for state in (State.WARMING, State.RUNNING):
            progress.move(state)
        self.source, self.pipeline = ScriptedSource(*polls), AcceptingPipeline()
        settings = settings or Settings()
        context = WorkerContext(metrics, progress, self.clock, threading.Event())
        work, self.listener = build_in_flight(settings, context), RebalanceListener()
        self.completions = work.completions
        path = RecordPath(self.source, self.pipeline, SilentSink())  # type: ignore[arg-type]
        self.worker = build_worker(
            settings,
            context,
            work,
            path,
            self.listener,
            formats=plain_formats(settings),
            other_members="unknown",
        )
        self.listener.on_assigned({Partition("in", 0): 1})

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.worker._step()

    def acknowledge(self, *offsets: int) -> None:
        outcomes = tuple(
            Encoded(raw(offset).ref, "out", None, b"", [], timestamp_ms=0, label="POSITIVE")
            for offset in offsets
        )
        self.completions.completed(Completion(outcomes, self.clock.monotonic()))


def good(*offsets: int) -> list[RawRecord]:
    return [raw(offset) for offset in offsets]


def bad(*offsets: int) -> list[RawRecord]:
    return [raw(offset, b"{") for offset in offsets]


def taken(rig: Rig) -> Sequence[int]:
    return rig.pipeline.taken


def test_damage_stops_the_worker_once_all_records_before_it_are_acknowledged() -> None:
    """The command that moves the group past the damage would skip them otherwise."""
    rig = Rig(good(0, 1), InputDamaged("in[0]: offsets 2 to 5"))
    rig.step(4)
    assert taken(rig) == [0, 1]
    assert rig.source.paused == 2  # at each step, because a rebalance may add partitions
    rig.acknowledge(0)
    rig.step()
    rig.acknowledge(1)
    with pytest.raises(InputDamaged, match="offsets 2 to 5"):
        rig.step()
    assert rig.source.paused == 4


def test_unreadable_records_wait_for_a_readable_one() -> None:
    rig = Rig(good(0), bad(1, 2), [], good(3))
    rig.step(4)
    assert taken(rig) == [0]
    rig.step()
    assert taken(rig) == [0, 1, 2, 3]


def test_the_loop_waits_in_poll_while_records_are_held_back() -> None:
    """It has no batch to hand over, and would otherwise spin."""
    rig = Rig(bad(0))
    rig.step(5)
    assert min(rig.source.timeouts[1:]) > 0


@pytest.mark.parametrize(
    ("busy_for", "timeout"), [(-math.inf, 0.01), (0.02, 0.01), (0.12, 0.03), (5.0, 0.05)]
)
def test_the_loop_polls_less_often_while_the_model_has_work(
    busy_for: float, timeout: float
) -> None:
    """Each empty poll takes a core from the model."""
    rig = Rig(good(0))
    rig.step()
    rig.pipeline.wanted = Demand(math.inf, busy_until=rig.clock.now + busy_for)
    rig.step()
    assert rig.source.timeouts[-1] == pytest.approx(timeout)


def test_the_loop_hands_over_in_time_although_it_polls_less_often() -> None:
    rig = Rig(good(0), good(1))
    rig.pipeline.wanted = Demand(math.inf, busy_until=rig.clock.now + 5.0)
    rig.step()
    rig.pipeline.wanted = Demand(rig.clock.now + 0.004, busy_until=rig.clock.now + 5.0)
    rig.step()
    assert rig.source.timeouts[-1] == pytest.approx(0.004)
    assert taken(rig) == []


def test_records_held_back_go_on_once_the_stream_is_quiet() -> None:
    rig = Rig(bad(0))
    rig.step(2)
    rig.clock.sleep(1.9)
    rig.step()
    assert taken(rig) == []
    rig.clock.sleep(0.1)
    rig.step()
    assert taken(rig) == [0]


def test_a_paused_stream_does_not_count_as_quiet() -> None:
    """Polling is paused at the bound, and the topic may have more records."""
    bounded = load({"batch.max_records": 2, "max_inflight_records": 2}, environ={}).settings
    rig = Rig(bad(0, 1), settings=bounded)
    rig.step(3)
    rig.clock.sleep(5)
    rig.step(2)
    assert taken(rig) == []
    rig.clock.sleep(5)
    rig.step()
    assert taken(rig) == [0, 1]


def test_the_record_that_stops_the_worker_is_not_tracked() -> None:
    """It was never handed on, so a rebalance must not wait for it."""
    rig = Rig(bad(*range(100)))
    with pytest.raises(StreamUnreadable):
        rig.step()
    rig.worker._intake.discard()
    assert rig.worker._offsets.records == 0


def test_a_rebalance_drops_records_held_back() -> None:
    rig = Rig(bad(0, 1))
    rig.step()
    assert rig.worker._offsets.records == 2
    rig.listener.on_revoked([Partition("in", 0)])
    assert rig.worker._offsets.records == 0
    rig.clock.sleep(60)
    rig.step()
    assert taken(rig) == []
    assert rig.source.committed == {}


def test_a_micro_batch_never_exceeds_max_inflight_records() -> None:
    bounded = load({"max_inflight_records": 3}, environ={}).settings
    rig = Rig(good(0, 1, 2), settings=bounded)
    rig.pipeline.wanted = Demand(math.inf)
    rig.step(2)
    assert taken(rig) == [0, 1, 2]
