"""Faults that need a dedicated broker: lost disks, flipped bits, revoked rights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, KafkaProducer

from tests.support.apache import ApacheKafka
from tests.support.guarded import (
    ADMIN,
    AUDITOR,
    CONFIGS,
    GUARDED,
    RIGHTS,
    TOPICS,
    WORKER,
    grant,
    take_away,
)
from tests.support.own_kafka import admin_of, named, own_kafka
from tests.support.workers import (
    ObedientModel,
    audit,
    check,
    clock,
    count,
    produce,
    running,
    texts,
    wait_until,
)
from worker.errors import AccessDenied, Fatal

pytestmark = [pytest.mark.integration, pytest.mark.allow_errors]

USER = (
    *("--kafka-security-protocol", "SASL_PLAINTEXT", "--kafka-sasl-mechanism", "PLAIN"),
    *("--kafka-sasl-username", "worker", "--kafka-sasl-password", "w"),
)


# -- disk --------------------------------------------------------------------------------------


def test_a_damaged_record_stops_the_worker_which_names_its_offset() -> None:
    """A flipped bit on disk: the records behind it can't be read and must not be skipped."""
    with own_kafka() as kafka, admin_of(kafka, TOPICS):
        broker = named(kafka)
        produce(broker, TOPICS.input, texts(5))
        produce(broker, TOPICS.input, [(b"k", b'{"text": "mark here"}')])
        kafka.go_down()
        (segment,) = (kafka.nodes[0].folder / "log" / "in-0").glob("*.log")
        segment.write_bytes(segment.read_bytes().replace(b"mark here", b"mask here"))
        kafka.go_up()
        with running(broker, TOPICS) as worker:
            worker.join(60)
        assert isinstance(worker.error, Fatal)
        said = str(worker.error)
        assert "topic='in', partition=0" in said
        assert "offset 5" in said
        assert "damaged" in said
        assert count(broker, TOPICS) <= 5


def test_the_worker_waits_for_a_disk_that_is_offline(tmp_path: Path) -> None:
    """One of the broker's two log directories goes offline, as if full, and comes back.

    The client gets KafkaStorageError or no leader; the broker stays up.
    """
    first, second = tmp_path / "a", tmp_path / "b"
    with own_kafka({"log.dirs": f"{first},{second}"}) as kafka, admin_of(kafka, TOPICS) as admin:
        broker = named(kafka)
        with running(broker, TOPICS, ObedientModel()) as worker:
            produce(broker, TOPICS.input, texts(50))
            wait_until(lambda: worker.published == 50, what="it works")
            wait_until(lambda: audit(broker, TOPICS)["pending"] == 0, what="all is committed")
            second.rename(tmp_path / "elsewhere")  # the next checkpoint there fails
            wait_until(lambda: offline(admin), 60, "the directory is offline")
            clock.sleep(2)
            assert worker.error is None
            assert worker.progress.live()[0]
            (tmp_path / "elsewhere").rename(second)
            kafka.go_down()
            kafka.go_up()
            produce(broker, TOPICS.input, texts(50, start=50))
            wait_until(lambda: count(broker, TOPICS) >= 100, 90, "it works again")
        assert worker.error is None
        verdict = audit(broker, TOPICS)
        assert verdict["holds"], verdict
        assert (verdict["consumed"], verdict["duplicated"]) == (100, 0)


def offline(admin: KafkaAdminClient) -> bool:
    """Return whether one of the three topics has no leader."""
    described = admin.describe_topics([TOPICS.input, TOPICS.output, TOPICS.dead])
    return any(part["leader_id"] == -1 for topic in described for part in topic["partitions"])


# -- rights ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded() -> Iterator[tuple[ApacheKafka, KafkaAdminClient]]:
    with own_kafka(GUARDED) as kafka, admin_of(kafka, TOPICS, **ADMIN) as admin:
        grant(admin, list(RIGHTS.values()))
        yield kafka, admin


@pytest.mark.allow_threads  # the admin client of this module
def test_check_names_the_right_to_read_the_topics_limits(
    guarded: tuple[ApacheKafka, KafkaAdminClient],
) -> None:
    kafka, admin = guarded
    said = check(named(kafka), TOPICS, *USER)
    for topic in (TOPICS.output, TOPICS.dead):
        assert f"configuration of topic '{topic}' can't be read: grant DESCRIBE_CONFIGS" in said
    grant(admin, CONFIGS)
    wait_until(lambda: "can't be read" not in check(named(kafka), TOPICS, *USER))
    for right in CONFIGS:
        take_away(admin, right)


@pytest.mark.allow_threads  # the admin client of this module
@pytest.mark.parametrize("lost", ["input", "output", "group"])
def test_a_right_that_is_revoked_stops_the_worker(
    guarded: tuple[ApacheKafka, KafkaAdminClient], lost: str
) -> None:
    """The log names the right; no record is lost, and a restart with the right goes on."""
    kafka, admin = guarded
    broker = named(kafka)
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap_servers, **ADMIN)
    made = 0

    def more() -> None:
        nonlocal made
        for key, value in texts(20, start=made):
            producer.send(TOPICS.input, key=key, value=value)
        producer.flush(30)
        made += 20

    with contextlib.closing(producer):
        with running(broker, TOPICS, **WORKER) as worker:
            more()
            wait_until(lambda: worker.published >= 20, what="it works")
            take_away(admin, RIGHTS[lost])
            clock.sleep(1)
            if lost != "group":  # an idle worker notices it too
                more()
            worker.join(60)
        assert isinstance(worker.error, Fatal)
        assert "AuthorizationFailed" in str(worker.error)
        if lost != "output":
            assert isinstance(worker.error, AccessDenied)
        grant(admin, [RIGHTS[lost]])
        wait_until(lambda: "grant that" not in check(broker, TOPICS, *USER), what="it is granted")
        with running(broker, TOPICS, **WORKER):
            more()
            wait_until(
                lambda: audit(broker, TOPICS, *AUDITOR)["pending"] == 0, 60, "a restart goes on"
            )
    verdict = audit(broker, TOPICS, *AUDITOR)
    assert (verdict["missing"], verdict["reordered"], verdict["orphans"]) == (0, 0, 0), verdict
