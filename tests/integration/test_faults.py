"""The whole worker on a real broker, with a model that misbehaves on purpose."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest
from kafka.record import memory_records
from kafka.record.default_records import DefaultRecordBatchBuilder

from schemas import Classification
from tests.conftest import Broker, Topics
from tests.support.workers import (
    ObedientModel,
    audit,
    clock,
    count,
    produce,
    read,
    running,
    texts,
    wait_until,
)
from worker.core.state import State

pytestmark = pytest.mark.integration


def test_key_headers_timestamp_and_order_are_kept(broker: Broker, topics: Topics) -> None:
    headers = [("trace", b"abc"), ("empty", b"")]
    made_at = clock.wall_ms() - 90_000
    produce(broker, topics.input, texts(60), headers=headers, timestamp_ms=made_at)
    with running(broker, topics):
        wait_until(lambda: count(broker, topics) == 60, what="all are labelled")
    sources = {(r.partition, r.offset): r for r in read(broker, topics.input, 3)}
    results = read(broker, topics.output, 3)
    assert len(results) == 60
    for result in results:
        labelled = Classification.model_validate_json(result.value)
        source = sources[labelled.source.partition, labelled.source.offset]
        assert (result.key, result.timestamp) == (source.key, made_at)
        assert result.headers[:2] == headers
        assert labelled.message_id == str(json.loads(source.value)["id"])
    for partition in range(3):
        order = [
            Classification.model_validate_json(r.value).source.offset
            for r in results
            if r.partition == partition
        ]
        assert order == sorted(order)


class NullsOnTheWire(DefaultRecordBatchBuilder):
    """A producer that writes a null header value where this test says `NULL`."""

    def append(self, *fields: Any, **more: Any) -> Any:
        *others, headers = fields
        given = [(name, None if value == NULL else value) for name, value in headers]
        return super().append(*others, given, **more)


NULL = b"<null>"


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_header_that_is_null_stays_null(
    broker: Broker, topics: Topics, monkeypatch: pytest.MonkeyPatch, delivery: str
) -> None:
    """In results and in dead letters; an empty value stays empty."""
    with monkeypatch.context() as other:
        other.setattr(memory_records, "DefaultRecordBatchBuilder", NullsOnTheWire)
        headers = [("a", NULL), ("b", b""), ("traceparent", NULL), ("streamlabel-source", NULL)]
        produce(broker, topics.input, [*texts(9), (b"k", b"{"), (b"k", None)], headers=headers)
    kept = [("a", None), ("b", b""), ("traceparent", None)]
    assert [r.headers[:3] for r in read(broker, topics.input, 3)] == [kept] * 11
    with running(broker, topics, delivery=delivery):
        wait_until(lambda: count(broker, topics) == 11, what="all have an outcome")
    assert [r.headers[:3] for r in read(broker, topics.output, 3)] == [kept] * 9
    assert [r.headers[:3] for r in read(broker, topics.dead, 3)] == [kept] * 2
    verdict = audit(broker, topics)
    assert (verdict["holds"], verdict["dead_lettered"]) == (True, 2), verdict


def test_backpressure_pauses_and_nothing_is_dropped(broker: Broker, topics: Topics) -> None:
    gate = threading.Event()

    def wait(_: list[str]) -> None:
        gate.wait(30)

    produce(broker, topics.input, texts(300))
    with running(
        broker, topics, ObedientModel(wait), max_inflight_records=64, batch__max_records=16
    ) as worker:
        wait_until(lambda: worker.progress.state is State.PAUSED, what="polling is paused")
        consumed = worker.value("streamlabel_records_consumed_total")
        clock.sleep(0.5)
        assert worker.value("streamlabel_records_consumed_total") == consumed <= 64
        gate.set()
        wait_until(lambda: count(broker, topics) == 300, what="all are labelled")
        wait_until(lambda: worker.progress.state is State.RUNNING, what="polling goes on")
    assert audit(broker, topics)["holds"]


def test_a_second_worker_takes_over_without_duplicates(broker: Broker, topics: Topics) -> None:
    """Scale-out under load, then scale-in: what is in flight is drained before it moves.

    FIELD complaint 1: committed before it was processed, lost on scale-down.
    FIELD complaint 5: a cooperative rebalance plus a batcher loses data.
    """

    def slowly(given: list[str]) -> None:
        clock.sleep(0.002 * len(given))

    if broker.kind == "embedded":
        pytest.skip("the embedded broker ends a member's generation the moment another one joins")
    made = 0

    def produce_more() -> bool:
        nonlocal made
        produce(broker, topics.input, texts(120, start=made))
        made += 120
        return second.value("streamlabel_records_published_total") > 120

    small: dict[str, Any] = {"batch__max_records": 16, "max_inflight_records": 128}
    with running(broker, topics, ObedientModel(slowly), **small) as first:
        produce(broker, topics.input, texts(120))
        made += 120
        wait_until(
            lambda: first.value("streamlabel_records_published_total") > 30, what="it is under way"
        )
        with running(broker, topics, ObedientModel(slowly), **small) as second:
            wait_until(produce_more, what="the second works")
            first.stop()
            wait_until(lambda: count(broker, topics) == made, what="the second finishes alone")
    verdict = audit(broker, topics)
    assert (verdict["consumed"], verdict["missing"], verdict["duplicated"]) == (made, 0, 0), verdict
    assert (verdict["reordered"], verdict["orphans"]) == (0, 0)


def test_a_stop_while_another_joins_ends_in_time_and_leaves_the_group(
    broker: Broker, topics: Topics
) -> None:
    """FIELD complaint 7: shutdown hangs in a rebalance, and the partitions wait for a timeout."""
    if broker.kind == "embedded":
        pytest.skip("the embedded broker ends a member's generation the moment another one joins")

    def slowly(given: list[str]) -> None:
        clock.sleep(0.002 * len(given))

    produce(broker, topics.input, texts(1500))
    small: dict[str, Any] = {"batch__max_records": 16, "max_inflight_records": 128}
    with running(broker, topics, ObedientModel(slowly), shutdown_timeout=5, **small) as first:
        wait_until(
            lambda: first.value("streamlabel_records_published_total") > 30, what="it is under way"
        )
        with running(broker, topics, ObedientModel(), **small) as second:
            clock.sleep(0.5)
            first.stop(timeout=20)
            # Well before the first one's session would time out (45 s).
            wait_until(
                lambda: second.value("streamlabel_records_published_total") > 30,
                20,
                "the second has its partitions",
            )
            wait_until(lambda: count(broker, topics) == 1500, what="all are labelled")
    verdict = audit(broker, topics)
    assert (verdict["consumed"], verdict["missing"], verdict["duplicated"]) == (1500, 0, 0), verdict


def test_records_polled_under_an_old_assignment_are_not_published(
    broker: Broker, topics: Topics
) -> None:
    """After a drain timed out, late results of the model belong to another worker.

    FIELD complaint 4: drain first, fence second, per partition.
    """
    if broker.kind == "embedded":
        pytest.skip("the embedded broker ends a member's generation the moment another one joins")
    gate = threading.Event()

    def hang(_: list[str]) -> None:
        gate.wait(60)

    produce(broker, topics.input, texts(30))
    mode = {"delivery": "exactly_once"}
    with running(broker, topics, ObedientModel(hang), rebalance_drain_timeout=1, **mode) as first:
        wait_until(lambda: first.value("streamlabel_inflight_records") == 30, what="all in flight")
        with running(broker, topics, **mode) as second:
            wait_until(
                lambda: second.value("streamlabel_records_published_total") > 0,
                what="the second labels what it took over",
            )
            gate.set()
            wait_until(lambda: count(broker, topics) >= 30, what="all are labelled")
    verdict = audit(broker, topics, "--delivery", "exactly_once")
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"]) == (30, 0)


def test_exactly_once_commits_results_and_offsets_together(broker: Broker, topics: Topics) -> None:
    produce(broker, topics.input, [*texts(120), (b"k", b"\xff")])
    for _ in range(2):
        with running(broker, topics, delivery="exactly_once", batch__max_records=16):
            wait_until(lambda: count(broker, topics) == 121, what="all have an outcome")
    verdict = audit(broker, topics, "--delivery", "exactly_once")
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"], verdict["pending"]) == (121, 0, 0)
