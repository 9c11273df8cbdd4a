"""Partitions wait for schemas: nothing is skipped, counted twice, or committed too early."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Hashable
from contextlib import nullcontext
from typing import Any

import pytest

from tests.support.clocks import HandClock
from tests.support.records import raw
from worker.core.formats.format import Document, SchemaPending
from worker.core.formats.plain_json import JsonResults
from worker.core.pace import Demand
from worker.core.records import Completion, Encoded, Headers, MicroBatch, Partition, RawRecord
from worker.core.state import State
from worker.errors import RecordRejected, StageCrashed, StreamUnreadable
from worker.metrics import Metrics
from worker.runtime.assembly import build_in_flight, build_worker
from worker.runtime.context import RecordPath, WorkerContext
from worker.runtime.formats import TopicFormats
from worker.runtime.intake import BUSY_POLL, IDLE_POLL
from worker.runtime.progress import Progress
from worker.runtime.rebalance import RebalanceListener
from worker.settings import load

A, B = Partition("in", 0), Partition("in", 1)


class SchemaFormat:
    """Values such as `7 hello`: a schema and a text. Only settled schemas can be parsed."""

    has_members = False

    def __init__(self) -> None:
        self.known: set[Hashable] = set()
        self.fault: Exception | None = None
        self.reason: str | None = None

    def parse(self, value: bytes, headers: Headers, topic: str = "") -> Document:
        schema, text = value.decode().split(" ", 1)
        if text == "?":
            raise RecordRejected("schema_mismatch", "not like its schema")
        if schema not in self.known:
            raise SchemaPending(schema)
        return Document(text)

    def settled(self, schema: Hashable) -> bool:
        if self.fault:
            raise self.fault
        return schema in self.known


class LogSource:
    """Partitions in memory, which are paused, held and read as `KafkaSource` does it."""

    def __init__(self) -> None:
        self.logs: dict[Partition, list[bytes]] = {A: [], B: []}
        self.at = {A: 0, B: 0}
        self.epochs = {A: 1, B: 1}
        self.held: set[Partition] = set()
        self.all_paused = False
        self.committed: dict[Partition, int] = {}
        self.timeouts: list[float] = []
        self.before_poll = lambda: None

    def poll(self, timeout: float, max_records: int) -> list[RawRecord]:
        self.timeouts.append(timeout)
        self.before_poll()
        records: list[RawRecord] = []
        for partition, log in self.logs.items():
            if self.all_paused or partition in self.held or partition not in self.epochs:
                continue
            at = self.at[partition]
            taken = log[at : at + max_records - len(records)]
            self.at[partition] += len(taken)
            records += [
                raw(at + n, value, partition=partition.partition, epoch=self.epochs[partition])
                for n, value in enumerate(taken)
            ]
        return records

    def hold(self, ref: Any) -> None:
        partition = Partition(ref.topic, ref.partition)
        self.at[partition] = ref.offset
        self.held.add(partition)

    def release(self, partition: Partition) -> None:
        self.held.discard(partition)

    def pause(self) -> None:
        self.all_paused = True

    def resume(self) -> None:
        self.all_paused = False

    def commit_async(self, offsets: dict[Partition, int], done: Any) -> None:
        self.committed |= offsets
        done(None)

    def positions(self) -> dict[Partition, int]:
        return {one: at for one, at in self.at.items() if one in self.epochs}

    def connected(self) -> bool:
        return True

    def finished(self) -> bool:
        return False

    def settled(self) -> bool:
        return True

    def no_topic(self) -> None:
        return None

    def end_offset(self, partition: Partition) -> int:
        return len(self.logs[partition])

    stable_end = end_offset


class OpenPipeline:
    """Takes every batch; `taken` are the records in order."""

    def __init__(self) -> None:
        self.taken: list[RawRecord] = []
        self.has_room, self.stages = True, ()

    def demand(self, _: int) -> Demand:
        return Demand(-math.inf)

    def offer(self, batch: MicroBatch) -> bool:
        self.taken += [entry.record for entry in batch.entries]
        return True


class SilentSink:
    commits_offsets = False

    def request_commit(self) -> None: ...
    def keep(self, _: object) -> None: ...
    def check(self) -> None: ...


class Bench:
    """A worker of two partitions that is stepped by hand."""

    def __init__(self, **options: Any) -> None:
        settings = load(options, environ={}).settings
        self.clock, self.metrics = HandClock(), Metrics()
        self.progress = Progress(120, self.metrics, self.clock)
        for state in (State.WARMING, State.RUNNING):
            self.progress.move(state)
        self.format, self.source, self.pipeline = SchemaFormat(), LogSource(), OpenPipeline()
        context = WorkerContext(self.metrics, self.progress, self.clock, threading.Event())
        work, self.listener = build_in_flight(settings, context), RebalanceListener()
        self.offsets, self.completions = work.offsets, work.completions
        self.worker = build_worker(
            settings,
            context,
            work,
            RecordPath(self.source, self.pipeline, SilentSink()),  # type: ignore[arg-type]
            self.listener,
            formats=TopicFormats(
                self.format, JsonResults(), lambda: self.format.reason, nullcontext()
            ),
            other_members="unknown",
        )
        self.listener.on_assigned(self.source.epochs)

    def step(self, times: int = 1) -> None:
        for _ in range(times):
            self.worker._step()
            self.clock.sleep(1)

    def acknowledge(self, records: list[RawRecord]) -> None:
        outcomes = tuple(
            Encoded(record.ref, "out", None, b"", [], timestamp_ms=0, label="POSITIVE")
            for record in records
        )
        self.completions.completed(Completion(outcomes, self.clock.monotonic()))

    def value(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"streamlabel_{name}") or 0.0

    def taken(self, partition: Partition) -> list[int]:
        records = self.pipeline.taken
        return [one.ref.offset for one in records if one.ref.partition == partition.partition]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_partition_waits_for_a_schema_and_the_others_go_on(bench: Bench) -> None:
    bench.format.known = {"1"}
    bench.source.logs = {A: [b"1 a", b"2 b", b"1 c"], B: [b"1 d", b"1 e"]}
    bench.step(3)
    assert (bench.taken(A), bench.taken(B)) == ([0], [0, 1])
    bench.format.known.add("2")
    bench.step(3)
    assert bench.taken(A) == [0, 1, 2]


def test_no_offset_is_committed_beyond_a_record_that_waits(bench: Bench) -> None:
    """The source's position is committed too: it must not lie behind a record that was dropped."""
    bench.format.known = {"1"}
    bench.source.logs[A] = [b"1 a", b"2 b", b"1 c"]
    bench.step(2)
    bench.acknowledge(bench.pipeline.taken)
    bench.step(3)
    assert bench.source.committed == {A: 1, B: 0}
    assert bench.offsets.records == 0, "a record that waits is not in flight"


def test_a_record_that_waited_is_counted_once(bench: Bench) -> None:
    bench.source.logs[A] = [b"1 a", b"1 b"]
    bench.step(2)
    assert bench.value("records_consumed_total") == 0
    bench.format.known = {"1"}
    bench.step(2)
    assert bench.value("records_consumed_total") == 2


def test_the_next_poll_comes_soon_while_an_answer_of_the_registry_is_due(bench: Bench) -> None:
    bench.step()
    bench.source.logs[A] = [b"1 a"]
    bench.step(2)
    bench.format.reason = "connection refused"
    bench.step()
    assert bench.source.timeouts == [IDLE_POLL, IDLE_POLL, BUSY_POLL, IDLE_POLL]


def test_backpressure_and_a_hold_are_independent() -> None:
    bench = Bench(max_inflight_records=2)
    bench.format.known = {"1"}
    bench.source.logs = {A: [b"2 a"], B: [b"1 b", b"1 c", b"1 d"]}
    bench.step(3)
    assert bench.progress.state is State.PAUSED
    bench.format.known.add("2")
    bench.step()
    assert bench.source.all_paused
    bench.acknowledge(bench.pipeline.taken)
    bench.step(3)
    assert (bench.taken(A), bench.taken(B)) == ([0], [0, 1, 2])


def test_a_partition_that_leaves_is_forgotten(bench: Bench) -> None:
    bench.source.logs[A] = [b"1 a"]
    bench.step(2)
    assert bench.value("waiting_partitions") == 1

    def lose() -> None:
        bench.source.epochs = {B: 1}
        bench.listener.on_lost([A])

    bench.source.before_poll = lose
    bench.step()
    bench.source.before_poll = lambda: None
    bench.step()
    assert (bench.value("waiting_partitions"), bench.source.held) == (0, set())


def test_a_partition_that_comes_back_is_read_from_its_committed_offset(bench: Bench) -> None:
    """Its epoch is another one, so the old hold neither keeps nor skips anything."""
    bench.format.known = {"1"}
    bench.source.logs[A] = [b"1 a", b"2 b"]
    bench.step(2)

    def move() -> None:
        bench.listener.on_lost([A])
        bench.source.epochs[A] = 2
        bench.source.at[A] = 0
        bench.source.held.clear()
        bench.listener.on_assigned({A: 2})

    bench.source.before_poll = move
    bench.step()
    bench.source.before_poll = lambda: None
    bench.format.known.add("2")
    bench.step(3)
    assert bench.taken(A) == [0, 0, 1]


def test_a_waiting_partition_is_no_stall_and_the_worker_is_not_ready(bench: Bench) -> None:
    bench.progress.joined = True
    bench.source.logs[A] = [b"1 a"]
    bench.step(2)
    assert bench.progress.ready() == (True, "running"), "the registry may answer at once"
    bench.format.reason = "http://registry: connection refused"
    bench.step(200)
    assert bench.progress.live() == (True, "running")
    reason = "the schema registry is away: http://registry: connection refused"
    assert bench.progress.ready() == (False, reason)
    bench.format.reason = None
    bench.step()
    assert bench.progress.ready() == (True, "running")


def test_the_lag_of_a_waiting_partition_goes_on(bench: Bench) -> None:
    bench.format.known = {"1"}
    bench.source.logs[A] = [b"1 a", b"2 b"]
    bench.step(2)
    bench.acknowledge(bench.pipeline.taken)
    bench.source.logs[A] += [b"2 c"] * 5
    bench.step(3)
    labels = {"topic": "in", "partition": "0"}
    assert bench.metrics.registry.get_sample_value("streamlabel_offset_lag", labels) == 6


def test_unreadable_records_before_one_that_waits_are_held_back_as_ever(bench: Bench) -> None:
    bench.source.logs[A] = [b"1 ?", b"1 a"]
    bench.step()
    assert bench.taken(A) == []
    bench.step(3)  # two seconds without a record
    assert bench.taken(A) == [0]


def test_an_unreadable_stream_stops_the_worker_although_a_partition_waits(bench: Bench) -> None:
    bench.source.logs = {A: [b"1 a"], B: [b"1 ?"] * 150}
    with pytest.raises(StreamUnreadable):
        bench.step(2)


def test_a_crash_of_the_schemas_stops_the_worker_before_a_record_that_waits(bench: Bench) -> None:
    bench.format.known = {"1"}
    bench.source.logs[A] = [b"1 a", b"2 b"]
    bench.step(2)
    bench.format.fault = StageCrashed("odd")
    with pytest.raises(StageCrashed, match="odd"):
        bench.step()
    assert bench.offsets.committable() == {}


@pytest.mark.parametrize("seed", range(20))
def test_every_record_is_labelled_once_in_order_whatever_the_order_of_answers(seed: int) -> None:
    """Schemas change within polls, answers come late, acknowledgements come in any order."""
    draw = random.Random(seed)
    bench = Bench(max_inflight_records=40)
    number = 200
    for partition in (A, B):
        schemas = [str(n // draw.randint(1, 40)) for n in range(number)]
        bench.source.logs[partition] = [f"{schema} text".encode() for schema in schemas]
    asked = {value.split()[0].decode() for log in bench.source.logs.values() for value in log}
    unknown = draw.sample(sorted(asked), len(asked))
    acknowledged: set[tuple[int, int]] = set()
    waiting: list[RawRecord] = []
    seen = 0
    for _ in range(20_000):
        bench.worker._step()
        bench.clock.sleep(draw.random())
        waiting += bench.pipeline.taken[seen:]
        seen = len(bench.pipeline.taken)
        if unknown and draw.random() < 0.2:
            bench.format.known.add(unknown.pop())
        some = draw.sample(waiting, draw.randint(0, len(waiting)))
        waiting = [record for record in waiting if record not in some]
        if some:
            bench.acknowledge(some)
            acknowledged |= {(record.ref.partition, record.ref.offset) for record in some}
        for partition, committed in bench.source.committed.items():
            below = {(partition.partition, offset) for offset in range(committed)}
            assert below <= acknowledged
        if bench.source.committed == {A: number, B: number}:
            break
    assert bench.taken(A) == bench.taken(B) == list(range(number))
    assert bench.value("records_consumed_total") == 2 * number
