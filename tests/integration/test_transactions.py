"""Exactly once with failing commits: at first it is unknown whether the broker has committed."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import KafkaError

from tests.conftest import Broker, Topics
from tests.support.workers import audit, count, produce, running, texts, wait_until
from worker.errors import Fatal
from worker.kafka_io.publisher import Publisher

pytestmark = pytest.mark.integration

EXACTLY_ONCE: dict[str, Any] = {"delivery": "exactly_once", "batch__max_records": 16}


@pytest.mark.parametrize("committed", [False, True])
def test_the_outcome_of_a_failed_commit_is_looked_up(
    broker: Broker, topics: Topics, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    """The answer is lost after the commit or before it: no record is repeated or dropped."""
    commit, calls = Publisher.commit, []

    def failing(self: Publisher, *args: Any) -> None:
        calls.append(args)
        if committed or len(calls) != 1:
            commit(self, *args)
        if len(calls) == 1:
            raise KafkaError("the answer is lost")

    monkeypatch.setattr(Publisher, "commit", failing)
    produce(broker, topics.input, texts(120))
    with running(broker, topics, **EXACTLY_ONCE) as worker:
        wait_until(
            lambda: worker.value("streamlabel_records_published_total") == 120, what="all are done"
        )
        assert worker.value("streamlabel_inflight_records") <= 120
    assert len(calls) >= 1 + (not committed)
    assert worker.error is None
    verdict = audit(broker, topics, "--delivery", "exactly_once")
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"], verdict["pending"]) == (120, 0, 0)


@pytest.mark.allow_errors
def test_commits_that_keep_failing_stop_the_worker_and_publish_nothing(
    broker: Broker, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FIELD complaint 6: committed though it failed."""

    def failing(*_: object) -> None:
        raise KafkaError("for reasons that nobody knows")

    produce(broker, topics.input, texts(30))
    with monkeypatch.context() as patched:
        patched.setattr(Publisher, "commit", failing)
        patched.setattr("worker.runtime.publishing.backoff", lambda *_: 0.05)
        with running(broker, topics, transaction_timeout=5, **EXACTLY_ONCE) as worker:
            worker.join(90)
    assert isinstance(worker.error, Fatal)
    assert "10 transactions in a row failed" in str(worker.error)
    assert count(broker, topics) == 0
    with running(broker, topics, **EXACTLY_ONCE):
        wait_until(lambda: count(broker, topics) == 30, what="a mended worker labels all")
    verdict = audit(broker, topics, "--delivery", "exactly_once")
    assert (verdict["holds"], verdict["consumed"]) == (True, 30), verdict


def test_a_transaction_stays_open_for_the_commit_interval_unless_a_commit_is_requested(
    broker: Broker, topics: Topics
) -> None:
    """Batches share a transaction; a stop does not wait for the interval.

    An earlier run leaves the group an offset of each partition: a partition without one requests a
    commit.
    """
    produce(broker, topics.input, texts(12))
    with running(broker, topics, **EXACTLY_ONCE):
        wait_until(lambda: count(broker, topics) == 12, what="the group has offsets")
    produce(broker, topics.input, texts(64))
    with running(broker, topics, commit_interval=30, transaction_timeout=90, **EXACTLY_ONCE) as w:
        wait_until(lambda: w.value("streamlabel_inflight_records") == 64, what="all are in flight")
        wait_until(
            lambda: w.value("streamlabel_stage_seconds_count", stage="infer") == 4,
            what="all are labelled",
        )
        assert count(broker, topics) == 12
        w.stop(timeout=20)
    assert count(broker, topics) == 12 + 64
