"""Records refused by a topic: only the refused record fails, and later ones avoid the refusal."""

from __future__ import annotations

import json
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, errors

from schemas import DeadLetter
from tests.conftest import Broker, MakeTopics, Topics
from tests.support.records import CARD
from tests.support.workers import (
    ObedientModel,
    alter,
    audit,
    check,
    clock,
    count,
    needs_kafka,
    produce,
    read,
    running,
    texts,
    wait_until,
)
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.records import ModelInput, Prediction
from worker.errors import PublishRefused, SettingsError

pytestmark = pytest.mark.integration

BOTH = pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
DAY_MS = 86_400_000
UNREADABLE = b"\xff"


def letter(record: Any) -> DeadLetter:
    return DeadLetter.model_validate_json(dict(record.headers)[DEAD_LETTER_HEADER])


def holds(broker: Broker, topics: Topics, delivery: str, consumed: int) -> dict[str, Any]:
    verdict = audit(broker, topics, "--delivery", delivery)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"]) == (consumed, 0), verdict
    assert verdict["pending"] == 0, verdict
    return verdict


def untold(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    """A user without DescribeConfigs, or a broker without that API."""

    def describe(*_: object, **__: object) -> dict[str, Any]:
        if how == "no such API":
            raise errors.IncompatibleBrokerVersion("DescribeConfigs")
        return {"topic": {}}

    monkeypatch.setattr(KafkaAdminClient, "describe_configs", describe)


def without_key(at: int, number: int = 100) -> list[tuple[bytes | None, bytes | None]]:
    records = texts(number)
    records[at] = (None, records[at][1])
    return records


@BOTH
def test_a_refused_result_is_a_dead_letter_and_the_rest_of_its_batch_is_published(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, delivery: str
) -> None:
    """A compacted topic refuses records without a key."""
    needs_kafka(broker, "takes any record")
    alter(admin, topics.output, cleanup_policy="compact")
    produce(broker, topics.input, without_key(50))
    with running(broker, topics, delivery=delivery) as worker:
        wait_until(lambda: count(broker, topics) >= 100, what="all have an outcome")
        wait_until(lambda: worker.published == 99, what="99 are counted")
    (dead,) = read(broker, topics.dead, 3)
    assert letter(dead).reason.value == "result_refused"
    assert "without key" in letter(dead).message
    assert json.loads(dead.value)["id"] == 50
    holds(broker, topics, delivery, 100)


@BOTH
@pytest.mark.parametrize(
    ("side", "bound_ms", "away_ms"),
    [("before", DAY_MS, -3 * DAY_MS), ("after", 60_000, 20 * 60_000)],
)
@pytest.mark.parametrize("known", [True, False], ids=["known", "found out"])
def test_a_refused_timestamp_becomes_the_time_of_labelling(  # noqa: PLR0917
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    delivery: str,
    side: str,
    bound_ms: int,
    away_ms: int,
    known: bool,
) -> None:
    """In results and in dead letters; `source` keeps the original."""
    needs_kafka(broker, "takes any record")

    def bind() -> None:
        for topic in (topics.output, topics.dead):
            alter(admin, topic, **{f"message_timestamp_{side}_max_ms": str(bound_ms)})

    if known:
        bind()
    odd = clock.wall_ms() + away_ms
    with running(broker, topics, delivery=delivery) as worker:
        if not known:
            wait_until(lambda: worker.progress.ready()[0], what="it has read the limits")
            bind()
        produce(broker, topics.input, texts(50))
        produce(broker, topics.input, [*texts(2, start=50), (b"k", UNREADABLE)], timestamp_ms=odd)
        produce(broker, topics.input, texts(50, start=52))
        wait_until(lambda: count(broker, topics) >= 103, what="all have an outcome")
    assert worker.error is None
    (dead,) = read(broker, topics.dead, 3)
    assert letter(dead).source.timestamp_ms == odd
    results = read(broker, topics.output, 3)
    replaced = [r for r in results if json.loads(r.value)["source"]["timestamp_ms"] == odd]
    assert len(replaced) == 2
    assert all(abs(r.timestamp - clock.wall_ms()) < 600_000 for r in [*replaced, dead])
    holds(broker, topics, delivery, 103)


@BOTH
def test_refusals_amid_dead_letters_keep_every_order(
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    monkeypatch: pytest.MonkeyPatch,
    delivery: str,
) -> None:
    """A refused result becomes a dead letter beside records that were dead letters from the start.

    Each is smaller than the one before and larger than its topic allows: each is tried.
    """
    needs_kafka(broker, "takes any record")
    alter(admin, topics.output, max_message_bytes="3000")
    untold(monkeypatch, "no right")
    records = texts(400)
    for n in range(5, 400, 10):
        records[n] = (records[n][0], UNREADABLE)
    for n in range(0, 400, 50):
        pad = "x" * (9_000 - 10 * n)
        value = json.dumps({"id": n, "text": "hello", "pad": pad}).encode()
        records[n] = (records[n][0], value)
    produce(broker, topics.input, records)
    settings = {"output__mode": "enrich", "batch__max_records": 32}
    with running(broker, topics, delivery=delivery, **settings) as worker:
        wait_until(lambda: count(broker, topics) >= 400, what="all have an outcome")
    assert worker.error is None
    reasons = [letter(r).reason.value for r in read(broker, topics.dead, 3)]
    assert reasons.count("result_too_large") == 8
    assert reasons.count("not_utf8") == 40
    holds(broker, topics, delivery, 400)


@pytest.mark.allow_errors
@BOTH
@pytest.mark.parametrize("topics", [1], indirect=True)
def test_a_refused_dead_letter_stops_the_worker_and_is_named(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, delivery: str
) -> None:
    """Earlier records are committed; later ones are not published again at each restart."""
    needs_kafka(broker, "takes any record")
    alter(admin, topics.dead, cleanup_policy="compact")
    produce(broker, topics.input, [*texts(30), (None, UNREADABLE), *texts(30, start=30)])
    for _ in range(3):
        with running(broker, topics, delivery=delivery) as worker:
            worker.join()
        assert isinstance(worker.error, PublishRefused)
        said = str(worker.error)
        assert f"{topics.input}[0] offset 30" in said
        assert "without key" in said
        assert topics.dead in said
        assert count(broker, topics) == 30
    alter(admin, topics.dead, cleanup_policy="delete")
    with running(broker, topics, delivery=delivery):
        wait_until(lambda: count(broker, topics) >= 61, what="a mended topic goes on")
    holds(broker, topics, delivery, 61)


# -- sizes -------------------------------------------------------------------------------------


LARGE = json.dumps({"id": "large", "text": "hello", "pad": "x" * 2_000_000}).encode()


@BOTH
@pytest.mark.parametrize("how", ["no right", "no such API"])
def test_a_size_limit_that_can_not_be_read_is_learnt(  # noqa: PLR0917
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    delivery: str,
    how: str,
) -> None:
    """One dead letter is cut until it fits; later ones fit at once."""
    needs_kafka(broker, "takes any record")
    alter(admin, topics.output, max_message_bytes="5000000")
    alter(admin, topics.dead, max_message_bytes="200000")
    alter(admin, topics.input, max_message_bytes="5000000")
    untold(monkeypatch, how)
    settings = {
        "delivery": delivery,
        "output__mode": "enrich",
        "input__max_bytes": 4_000_000,
        "kafka__max_partition_fetch_bytes": 5_000_000,
    }
    produce(broker, topics.input, texts(20))
    with closing(
        KafkaProducer(
            bootstrap_servers=broker.bootstrap_servers.split(","), max_request_size=5_000_000
        )
    ) as p:
        p.send(topics.input, LARGE, b"k").get(30)
    produce(broker, topics.input, [(b"k", b"\xff" * 500_000), *texts(20, start=20)])
    with running(broker, topics, **settings) as worker:
        wait_until(lambda: count(broker, topics) >= 42, what="all have an outcome")
        produce(broker, topics.input, [(b"k", b"\xff" * 500_000)])
        wait_until(lambda: count(broker, topics) >= 43, what="the next is cut at once")
    assert worker.error is None
    assert "grant DESCRIBE_CONFIGS" in capsys.readouterr().out
    assert [letter(r).value_state.value for r in read(broker, topics.dead, 3)] == ["cut", "cut"]
    assert max(len(r.value) for r in read(broker, topics.output, 3)) > 2_000_000
    holds(broker, topics, delivery, 43)


@pytest.mark.parametrize("known", [True, False], ids=["known", "found out"])
@BOTH
def test_a_result_too_large_for_its_topic_is_a_dead_letter(
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    monkeypatch: pytest.MonkeyPatch,
    delivery: str,
    known: bool,
) -> None:
    """The other results are published, even if the limit is smaller than the client's batches."""
    needs_kafka(broker, "takes any record")
    alter(admin, topics.output, max_message_bytes="3000")
    if not known:
        untold(monkeypatch, "no right")
    padded = json.dumps({"id": "padded", "text": "hello", "pad": "x" * 4000}).encode()
    produce(broker, topics.input, [*texts(20), (b"k", padded), *texts(20, start=20)])
    with running(broker, topics, delivery=delivery, output__mode="enrich") as worker:
        wait_until(lambda: count(broker, topics) >= 41, what="all have an outcome")
    assert worker.error is None
    (dead,) = read(broker, topics.dead, 3)
    assert letter(dead).reason.value == "result_too_large"
    assert dead.value == padded
    holds(broker, topics, delivery, 41)


# -- checks at start --------------------------------------------------------------------


@pytest.mark.parametrize("timestamp", ["event", "labelled"])
def test_outcomes_that_retention_deletes_at_once_are_reported(
    broker: Broker,
    topics: Topics,
    admin: KafkaAdminClient,
    capsys: pytest.CaptureFixture[str],
    timestamp: str,
) -> None:
    """At start, at the first such record, and in a metric; `labelled` timestamps avoid it."""
    needs_kafka(broker, "deletes nothing by time")
    alter(admin, topics.input, retention_ms="-1")
    produce(broker, topics.input, texts(21), timestamp_ms=clock.wall_ms() - 30 * DAY_MS)
    with running(broker, topics, output__timestamp=timestamp) as worker:
        wait_until(lambda: worker.published == 21, what="all are labelled")
        expired = worker.value("streamlabel_outcomes_expired_total")
        old = worker.value("streamlabel_end_to_end_seconds_sum") / 21
    assert old > 29 * 86_400
    assert expired == (21 if timestamp == "event" else 0)
    log = capsys.readouterr().out
    at_start = "keeps records for 7 days (retention.ms), the input for ever"
    assert (at_start in log) == (timestamp == "event")
    assert log.count("will be deleted soon") == (1 if timestamp == "event" else 0)
    if timestamp == "labelled":
        ages = [clock.wall_ms() - r.timestamp for r in read(broker, topics.output, 3)]
        assert len(ages) == 21
        assert max(ages) < DAY_MS


class Wordy(ObedientModel):
    """Return a probability for each label of the card."""

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        number = len(self.card.labels)
        return [Prediction((1 / number,) * number, 3, truncated=False) for _ in model_input.ids]


def test_a_model_whose_results_can_never_fit_is_refused_at_start(
    broker: Broker, topics: Topics
) -> None:
    """Otherwise the whole topic would become dead letters."""
    labels = tuple(f"label-{n}" for n in range(40_000))
    model = Wordy(card=replace(CARD, labels=labels))
    produce(broker, topics.input, texts(5))
    with running(broker, topics, model) as worker:
        worker.join()
    assert isinstance(worker.error, SettingsError)
    said = str(worker.error)
    assert "never fits" in said
    assert "40,000 labels" in said
    assert "max.message.bytes" in said
    assert count(broker, topics) == 0


def test_check_warns_of_doubtful_topic_settings(
    broker: Broker, topics: Topics, make_topics: MakeTopics, admin: KafkaAdminClient
) -> None:
    """Compaction, retention, bounds of timestamps, too few partitions or replicas."""
    needs_kafka(broker, "has few of these options")
    few = make_topics(partitions=1)
    alter(admin, topics.input, retention_ms="-1")
    alter(
        admin,
        few.output,
        cleanup_policy="compact,delete",
        message_timestamp_before_max_ms=str(DAY_MS),
        message_timestamp_after_max_ms="60000",
        min_insync_replicas="2",
    )
    said = check(broker, replace(topics, output=few.output))
    for words in (
        f"{few.output}' is compacted",
        "keeps records for 7 days (retention.ms), the input for ever",
        "more than 24 hours before now",
        "more than 60 seconds after now",
        "has fewer partitions (1) than the input (3)",
        "has replication factor 1 and min.insync.replicas = 2",
    ):
        assert words in said
    assert "!!" not in check(broker, make_topics(partitions=3))
