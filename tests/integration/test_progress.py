"""A group's beginning and its progress, by the offsets that it has committed.

The tests ask the cluster, as `kafka-consumer-groups` does, and read the worker's metrics.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from structlog.testing import capture_logs

from tests.conftest import Broker, Topics
from tests.support.models import make_checkpoint
from tests.support.workers import (
    WorkerProcess,
    WorkerThread,
    audit,
    committed,
    count,
    lag,
    produce,
    running,
    texts,
    wait_until,
)

pytestmark = pytest.mark.integration

MODES = ("at_least_once", "exactly_once")


def expires_members(broker: Broker) -> None:
    if broker.kind == "embedded":
        pytest.skip("the embedded broker never expires a member")


def begun(broker: Broker, topics: Topics) -> None:
    """Wait until the group has a position in each partition."""
    wait_until(
        lambda: len(committed(broker, topics)) == topics.partitions,
        what="the group has a position in each partition",
    )


# -- the start of a group --------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", MODES)
def test_a_position_at_the_end_is_kept_from_one_run_to_the_next(
    broker: Broker, topics: Topics, delivery: str
) -> None:
    """Even if the first run has nothing to label, and one partition never has a record."""
    produce(broker, topics.input, texts(10), partition=0)
    with running(broker, topics, delivery=delivery, input__start="latest") as worker:
        begun(broker, topics)
        assert worker.value("streamlabel_partitions_begun_total") == 3
        worker.stop()
    assert committed(broker, topics) == {0: 10, 1: 0, 2: 0}
    produce(broker, topics.input, texts(4, start=10), partition=1)
    with running(broker, topics, delivery=delivery, input__start="latest") as worker:
        produce(broker, topics.input, texts(1, start=14), partition=0)
        wait_until(lambda: count(broker, topics) == 5, what="what came between is labelled too")
        assert worker.value("streamlabel_partitions_begun_total") == 0
    verdict = audit(broker, topics, "--to-end", "--input-start", "latest")
    assert (verdict["published"], verdict["missing"]) == (5, 0), verdict


@pytest.mark.timeout(400)
@pytest.mark.parametrize("topics", [1], indirect=True)
@pytest.mark.parametrize("delivery", MODES)
def test_a_kill_before_the_first_commit_loses_nothing(
    broker: Broker, topics: Topics, tmp_path: Path, delivery: str
) -> None:
    """The group began at the end; all later records were in flight or not yet committed."""
    expires_members(broker)
    options = ("--input-start", "latest", "--delivery", delivery, "--commit-interval", "30")
    more = ("--transaction-timeout", "60") if delivery == "exactly_once" else ()
    model = make_checkpoint(tmp_path / "model", max_tokens=64)
    first = WorkerProcess(broker, topics, model, tmp_path / "1.log", *options, *more)
    try:
        first.wait_ready()
        begun(broker, topics)
        produce(broker, topics.input, texts(40))
        wait_until(lambda: first.metric("streamlabel_records_consumed_total") == 40, what="polled")
    finally:
        first.kill()
    with running(broker, topics, input__start="latest", delivery=delivery):
        produce(broker, topics.input, texts(1, start=40))
        # The session of the killed worker ends after 45 s.
        wait_until(lambda: lag(broker, topics) == 0, 150, what="all is committed")
    verdict = audit(broker, topics, "--to-end", "--delivery", delivery)
    assert (verdict["consumed"], verdict["missing"]) == (41, 0), verdict


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_lost_offsets_are_logged(broker: Broker, topics: Topics, admin: KafkaAdminClient) -> None:
    """They expire while no worker runs; only this line explains why all is labelled again."""
    produce(broker, topics.input, texts(5))
    with running(broker, topics) as worker:
        wait_until(lambda: lag(broker, topics) == 0, what="all is committed")
        worker.stop()
    admin.delete_groups([topics.group])
    with capture_logs() as lines, running(broker, topics) as worker:
        wait_until(lambda: worker.published == 5, what="all is labelled again")
        assert worker.value("streamlabel_partitions_begun_total") == 1
    (line,) = [line for line in lines if "the group has no offsets" in line["event"]]
    assert line["event"] == "the group has no offsets: starting at the earliest"
    assert line["partitions"] == [f"{topics.input}[0]"]


# -- progress of a group --------------------------------------------------------------------------


def transactions(broker: Broker, topics: Topics, *sizes: int) -> None:
    """Send transactions to partition 0: positive numbers commit, negative ones abort."""
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers.split(","), transactional_id=topics.input
    )
    producer.init_transactions()
    for size in sizes:
        producer.begin_transaction()
        for key, value in texts(abs(size)):
            producer.send(topics.input, key=key, value=value, partition=0)
        if size > 0:
            producer.commit_transaction()
        else:
            producer.abort_transaction()
    producer.close()


def at_the_end(broker: Broker, topics: Topics, worker: WorkerThread) -> None:
    """Wait until neither Kafka nor the metrics show a lag."""
    wait_until(lambda: lag(broker, topics) == 0, 20, "the group has no lag")
    told = {"topic": topics.input, "partition": "0"}
    wait_until(lambda: worker.value("streamlabel_offset_lag", **told) == 0, 20, "nor the metric")


@pytest.mark.parametrize("topics", [1], indirect=True)
@pytest.mark.parametrize("delivery", MODES)
@pytest.mark.parametrize("sizes", [(1,), (7, -3), (-5,)])
def test_transactions_on_the_input_leave_no_lag(
    broker: Broker, topics: Topics, delivery: str, sizes: tuple[int, ...]
) -> None:
    """Markers and aborted records have offsets but no outcomes to move the group past them."""
    transactions(broker, topics, *sizes)
    expected = sum(size for size in sizes if size > 0)
    with running(broker, topics, delivery=delivery) as worker:
        wait_until(lambda: worker.published == expected, what="all are labelled")
        at_the_end(broker, topics, worker)
        transactions(broker, topics, -2)  # again while it runs
        at_the_end(broker, topics, worker)
        transactions(broker, topics, 3)
        at_the_end(broker, topics, worker)
    verdict = audit(broker, topics, "--delivery", delivery)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["pending"]) == (expected + 3, 0), verdict


# -- delays by others ------------------------------------------------------------------------------


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_an_open_transaction_of_another_producer_is_logged_and_measured(
    broker: Broker, topics: Topics
) -> None:
    """Health is green and the lag stands still: the records behind it can't be read."""
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers.split(","), transactional_id=topics.input
    )
    producer.init_transactions()
    with capture_logs() as lines, running(broker, topics) as worker:
        produce(broker, topics.input, texts(3))
        wait_until(lambda: worker.published == 3, what="what is before it is labelled")
        producer.begin_transaction()
        producer.send(topics.input, value=b'{"text": "held"}').get(timeout=30)
        produce(broker, topics.input, texts(4))
        told = {"topic": topics.input, "partition": "0"}
        wait_until(
            lambda: worker.value("streamlabel_open_transaction_seconds", **told) > 5, what="held up"
        )
        wait_until(lambda: any("open transaction holds back" in line["event"] for line in lines))
        (line,) = [line for line in lines if "open transaction holds back" in line["event"]]
        assert (line["topic"], line["offset"], line["held"]) == (topics.input, 3, 5)
        assert worker.published == 3
        producer.commit_transaction()
        producer.close()
        wait_until(lambda: worker.published == 8, what="all are labelled")
        wait_until(
            lambda: worker.value("streamlabel_open_transaction_seconds", **told) == 0, what="over"
        )
        at_the_end(broker, topics, worker)


def test_a_join_that_waits_for_a_dead_member_is_logged_and_measured(
    broker: Broker, topics: Topics
) -> None:
    """The member was killed, and its session has not expired yet."""
    expires_members(broker)
    dead = KafkaConsumer(
        topics.input,
        bootstrap_servers=broker.bootstrap_servers.split(","),
        group_id=topics.group,
        partition_assignment_strategy=[CooperativeStickyAssignor],
        enable_auto_commit=False,
        session_timeout_ms=15_000,
    )
    wait_until(lambda: dead.poll(timeout_ms=200) == {} and dead.assignment(), what="it is in")
    dead._coordinator._disable_heartbeat()
    with capture_logs() as lines, running(broker, topics) as worker:
        wait_until(lambda: worker.value("streamlabel_joining_seconds") > 5, what="it waits")
        wait_until(lambda: any("joining group is slow" in line["event"] for line in lines))
        (line,) = [line for line in lines if "joining group is slow" in line["event"]]
        assert (line["group"], line["other_members"]) == (topics.group, 1)
        wait_until(lambda: worker.progress.ready()[0], what="it is in")
        wait_until(lambda: worker.value("streamlabel_joining_seconds") == 0, what="it is over")
    dead.close(autocommit=False, timeout_ms=1000)
