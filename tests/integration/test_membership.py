"""Group membership: the rights of a worker that is a member, none, or in doubt."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import MemberToRemove
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaTimeoutError

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import (
    ObedientModel,
    Partitions,
    WorkerProcess,
    WorkerThread,
    audit,
    clock,
    count,
    flags,
    produce,
    running,
    texts,
    wait_until,
)
from worker.core.records import Partition, RawRecord
from worker.errors import BrokerAway, Fenced
from worker.kafka_io.source import KafkaSource
from worker.settings import load

pytestmark = pytest.mark.integration

SMALL: dict[str, Any] = {"batch__max_records": 16, "max_inflight_records": 128}


@pytest.fixture(autouse=True)
def _needs_a_group_that_expires_members(broker: Broker) -> None:
    if broker.kind == "embedded":
        pytest.skip("the embedded broker never expires a member, and fences none")


def rebalances(worker: WorkerThread) -> float:
    """Count the rebalances so far."""
    kinds = ("assigned", "revoked", "lost")
    return sum(worker.value("streamlabel_rebalances_total", kind=kind) for kind in kinds)


def slowly(given: list[str]) -> None:
    clock.sleep(0.002 * len(given))


class Gate:
    """A model that hangs until it is released."""

    def __init__(self) -> None:
        self.open = threading.Event()

    def __call__(self, _: list[str]) -> None:
        self.open.wait(60)


# -- a session that ends unnoticed ---------------------------------------------------------------


def test_a_member_without_heartbeats_is_in_doubt_and_then_out(
    broker: Broker, topics: Topics
) -> None:
    """By the local clock, before the coordinator says so: until then, ownership is unknown."""
    produce(broker, topics.input, texts(30))
    options = flags(broker, topics) | {"kafka.session_timeout": 6, "kafka.max_poll_interval": 60}
    handler = Partitions()
    source = KafkaSource(load(options, environ={}).settings, handler, clock)
    try:
        polled: list[RawRecord] = []
        wait_until(lambda: bool(polled.extend(source.poll(0.1, 100)) or polled), what="records")
        assert all(source.current(record.ref) for record in polled)
        source._consumer._coordinator._disable_heartbeat()
        wait_until(lambda: raises(BrokerAway, source, polled[0]), 20, "it is in doubt")
        assert handler.told == ["assigned"]
        source._consumer._coordinator._enable_heartbeat()
        wait_until(lambda: bool(source.poll(0.1, 1)) or "lost" in handler.told, 20, "it is out")
        wait_until(lambda: bool(source.poll(0.1, 1)), what="it is in again")
        assert handler.told == ["assigned", "lost", "assigned"]
        assert not any(source.current(record.ref) for record in polled)
    finally:
        source.close(5)


def test_a_member_that_rejoins_gets_no_partition_that_another_still_drains(
    broker: Broker, topics: Topics
) -> None:
    """FIELD complaint 5: it claimed its old partitions, and both workers processed them."""
    options = flags(broker, topics) | {"kafka.session_timeout": 6, "kafka.max_poll_interval": 60}
    settings = load(options, environ={}).settings
    stop, drained = threading.Event(), threading.Event()
    lost, other = Partitions(), Partitions(drained)
    with contextlib.ExitStack() as stack:
        source = KafkaSource(settings, lost, clock)
        stack.callback(source.close, 5)
        wait_until(lambda: source.poll(0.1, 1) or "assigned" in lost.told, what="it is in")
        source._consumer._coordinator._disable_heartbeat()  # as if the process were stopped
        successor = KafkaSource(settings, other, clock)
        polling = threading.Thread(target=poll_until, args=(successor, stop))
        polling.start()
        stack.callback(polling.join)
        stack.callback(stop.set)
        stack.callback(drained.set)
        wait_until(lambda: len(other.owned) == 3, 30, "the other has taken over")
        source._consumer._coordinator._enable_heartbeat()
        wait_until(
            lambda: source.poll(0.1, 1) or "revoking" in other.told, 30, "the other has to drain"
        )
        for _ in range(20):  # rebalances would have ended by now
            source.poll(0.1, 1)
        assert not lost.owned
        drained.set()
        wait_until(lambda: source.poll(0.1, 1) or lost.owned, 30, "it has its part")
        assert not lost.owned & other.owned


def poll_until(source: KafkaSource, stop: threading.Event) -> None:
    while not stop.is_set():
        source.poll(0.1, 1)
    source.close(5)


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_partition_that_returns_goes_on_from_the_current_commit(
    broker: Broker, topics: Topics
) -> None:
    """From the cached offset of the client, all would be labelled again."""
    produce(broker, topics.input, texts(30))
    handler = Partitions()
    settings = flags(broker, topics) | {"kafka.session_timeout": 6}
    source = KafkaSource(load(settings, environ={}).settings, handler, clock)
    try:
        polled: list[RawRecord] = []
        wait_until(lambda: polled.extend(source.poll(0.1, 100)) or len(polled) == 30, what="all")
        with contextlib.suppress(KafkaTimeoutError):
            source._consumer.committed(TopicPartition(topics.input, 0), timeout_ms=0)
        source.commit({Partition(topics.input, 0): 30}, 10)
        source._consumer._coordinator.reset_generation()  # as after the answer "unknown member"
        again: list[RawRecord] = []
        wait_until(
            lambda: again.extend(source.poll(0.1, 100)) or handler.told[1:] == ["lost", "assigned"],
            what="it is in again",
        )
        produce(broker, topics.input, texts(1, start=30))
        wait_until(lambda: again.extend(source.poll(0.1, 100)) or bool(again), what="the new one")
        assert [record.ref.offset for record in again] == [30]
    finally:
        source.close(5)


def raises(kind: type[Exception], source: KafkaSource, record: RawRecord) -> bool:
    try:
        source.current(record.ref)
    except kind:
        return True
    return False


@pytest.mark.timeout(300)
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_zombie_publishes_nothing_of_its_lost_partitions(
    broker: Broker, topics: Topics, tmp_path: Path, delivery: str
) -> None:
    """SIGSTOP for longer than the session, a successor takes over, SIGCONT.

    FIELD complaint 4: fenced per partition. Records handed to the client before the stop may
    still be published twice, unless they are part of a transaction.
    """
    inflight = 64
    options = (
        *("--delivery", delivery, "--kafka-session-timeout", "6", "--transaction-timeout", "2"),
        *("--batch-forward-tokens", "64", "--batch-max-records", "8", "--commit-interval", "0.1"),
        *("--max-inflight-records", str(inflight)),
    )
    model = make_checkpoint(tmp_path / "model", max_tokens=64)
    workers: list[WorkerProcess] = []
    made = 0

    def start(name: str) -> WorkerProcess:
        workers.append(WorkerProcess(broker, topics, model, tmp_path / name, *options))
        return workers[-1]

    def more(number: int = 200) -> None:
        nonlocal made
        produce(broker, topics.input, texts(number, start=made))
        made += number

    try:
        zombie = start("zombie.log")
        zombie.wait_ready()
        more(2_000)  # more than it labels before it is stopped
        wait_until(lambda: zombie.metric("streamlabel_records_published_total") > 20, what="busy")
        zombie.process.send_signal(signal.SIGSTOP)
        more()
        successor = start("successor.log")
        successor.wait_ready()
        wait_until(
            lambda: successor.metric("streamlabel_records_published_total") > 200, what="taken over"
        )
        zombie.process.send_signal(signal.SIGCONT)
        more()
        wait_until(lambda: audit(broker, topics)["pending"] == 0, 90, "all is committed")
        assert successor.stop() == 0, successor.log.read_text()
        # A transaction that was open at the stop has timed out: its owner is fenced, which is no
        # clean end. The topics decide.
        assert zombie.stop() == 0 or delivery == "exactly_once", zombie.log.read_text()
    finally:
        for worker in workers:
            worker.kill()
    verdict = audit(broker, topics, "--delivery", delivery)
    assert (verdict["consumed"], verdict["missing"]) == (made, 0), verdict
    assert (verdict["reordered"], verdict["orphans"]) == (0, 0), verdict
    # In flight, or acknowledged in the tenth of a second since the last commit.
    assert verdict["duplicated"] <= (2 * inflight if delivery == "at_least_once" else 0), (
        json.dumps(verdict)
    )


def test_a_membership_lost_in_the_middle_of_a_join_is_lost(
    broker: Broker, topics: Topics, admin: KafkaAdminClient
) -> None:
    """Another worker may have owned the partitions meanwhile: records in flight do not count."""
    gate = Gate()
    produce(broker, topics.input, texts(60))
    other = KafkaConsumer(
        topics.input,
        bootstrap_servers=broker.bootstrap_servers.split(","),
        group_id=topics.group,
        client_id="other",
        partition_assignment_strategy=[CooperativeStickyAssignor],
        enable_auto_commit=False,
    )
    with running(broker, topics, ObedientModel(gate), rebalance_drain_timeout=1, **SMALL) as worker:
        wait_until(lambda: worker.value("streamlabel_inflight_records") > 0, what="it is under way")

        def rebalancing() -> bool:
            other.poll(timeout_ms=100)  # joins; the group waits for the worker, then for the other
            return not joined(admin, topics)

        wait_until(rebalancing, 20, "a rebalance is under way")
        clock.sleep(1.5)  # the worker has joined and waits for the other one
        ours = [m for m in members(admin, topics) if m["client_id"] == "streamlabel"]
        admin.remove_group_members(
            topics.group, [MemberToRemove(member_id=one["member_id"]) for one in ours]
        )
        other.close(timeout_ms=2000)
        wait_until(
            lambda: worker.value("streamlabel_rebalances_total", kind="lost") == 1, 30, "it is told"
        )
        gate.open.set()
        wait_until(lambda: count(broker, topics) >= 60, what="all are labelled")
    verdict = audit(broker, topics)
    assert (verdict["missing"], verdict["reordered"]) == (0, 0), verdict


def members(admin: KafkaAdminClient, topics: Topics) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = admin.describe_groups([topics.group])[topics.group]["members"]
    return found


def joined(admin: KafkaAdminClient, topics: Topics) -> bool:
    return bool(admin.describe_groups([topics.group])[topics.group]["group_state"] == "Stable")


# -- members that join, leave and stand still ------------------------------------------------------


def test_a_batch_slower_than_max_poll_interval_loses_nothing_and_starts_no_rebalance_storm(
    broker: Broker, topics: Topics
) -> None:
    """FIELD complaint 2: the poll thread polls while the model is busy."""

    def one_long_batch(given: list[str]) -> None:
        if "post number 20" in given:
            clock.sleep(9)

    produce(broker, topics.input, texts(100))
    limits: dict[str, Any] = {
        "kafka__max_poll_interval": 6,
        "kafka__session_timeout": 6,
        "rebalance_drain_timeout": 2,
    }
    with running(broker, topics, ObedientModel(one_long_batch), **limits, **SMALL) as worker:
        wait_until(lambda: count(broker, topics) == 100, what="all are labelled")
        assert rebalances(worker) == 1
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"]) == (100, 0)


def test_every_partition_makes_progress_after_each_rebalance(
    broker: Broker, topics: Topics
) -> None:
    """FIELD complaint 8: a silent stall after a rebalance."""
    with running(broker, topics, ObedientModel(slowly), **SMALL) as first:
        for made in (200, 400, 600):
            produce(broker, topics.input, texts(100, start=made - 200))
            with running(broker, topics, ObedientModel(slowly), **SMALL) as second:
                wait_until(
                    lambda worker=second: rebalances(worker) > 0, what="the second has its part"
                )
                produce(broker, topics.input, texts(100, start=made - 100))
            wait_until(functools.partial(labelled, broker, topics, made), what="all are labelled")
        assert first.progress.live()[0]
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"]) == (600, 0)


def labelled(broker: Broker, topics: Topics, number: int) -> bool:
    return count(broker, topics) == number


def test_a_static_member_that_restarts_in_time_keeps_its_partitions_without_a_rebalance(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    model = make_checkpoint(tmp_path / "model", max_tokens=64)
    static = ("--kafka-group-instance-id", "slot-1", "--kafka-session-timeout", "120")
    produce(broker, topics.input, texts(60))
    with running(broker, topics, **SMALL) as other:
        first = WorkerProcess(broker, topics, model, tmp_path / "1.log", *static)
        try:
            first.wait_ready()
            wait_until(
                lambda: first.metric('streamlabel_rebalances_total{kind="assigned"}') > 0,
                what="it has its part",
            )
            wait_until(lambda: count(broker, topics) == 60, what="all are labelled")
            before = rebalances(other)
        finally:
            first.kill()
        produce(broker, topics.input, texts(60, start=60))
        again = WorkerProcess(broker, topics, model, tmp_path / "2.log", *static)
        try:
            again.wait_ready()
            wait_until(lambda: count(broker, topics) >= 120, 20, "long before its session is over")
            assert again.metric('streamlabel_rebalances_total{kind="assigned"}') == 1
            assert rebalances(other) == before
            assert again.stop() == 0
        finally:
            again.kill()
    verdict = audit(broker, topics)
    assert (verdict["missing"], verdict["reordered"]) == (0, 0), verdict


@pytest.mark.parametrize("topics", [1], indirect=True)
@pytest.mark.parametrize("grows", ["while it is away", "later"])
def test_a_static_leader_that_has_restarted_notices_added_partitions(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, grows: str
) -> None:
    """The broker names its earlier id as the leader's, so the client would not watch the topic."""
    more = {"kafka.metadata_max_age": 1, "kafka.session_timeout": 30}
    settings = flags(broker, topics) | more | {"kafka.group_instance_id": "slot-1"}
    for restarted in (False, True):
        handler = Partitions()
        source = KafkaSource(load(settings, environ={}).settings, handler, clock)

        def holds(number: int, source: KafkaSource = source, owner: Partitions = handler) -> bool:
            return source.poll(0.1, 1) == [] and len(owner.owned) == number

        try:
            if not restarted or grows == "later":
                wait_until(functools.partial(holds, 1), what="it is in")
            if restarted == (grows == "later"):
                admin.create_partitions({topics.input: 3})
            if restarted:
                wait_until(functools.partial(holds, 3), 20, "it has the new ones too")
        finally:
            source.close(5)  # as a static member, which stays in the group


@pytest.mark.allow_errors
def test_an_idle_worker_is_stopped_by_another_with_its_group_instance_id(
    broker: Broker, topics: Topics
) -> None:
    """The client would only end its heartbeats, and the process would look healthy for ever."""
    name = {"kafka__group_instance_id": "slot-1"}
    with running(broker, topics, **name) as first:
        wait_until(lambda: first.progress.ready()[0], what="the first is in")
        with running(broker, topics, **name) as second:
            first.join(30)
            assert isinstance(first.error, Fenced)
            produce(broker, topics.input, texts(10))
            wait_until(lambda: second.published == 10, what="the second works")
