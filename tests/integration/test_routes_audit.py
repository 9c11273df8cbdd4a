"""`streamlabel audit` with routes on a real broker: main outcomes, copies and notes are judged."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.future import Future

from tests.conftest import Broker, Topics
from tests.integration.test_routes import BOTH, NUMBER, ByText, Site
from tests.support.workers import audit, lag, running, wait_until
from worker.cli.main import main
from worker.core.coordinates import SOURCE_HEADER, format_source
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.records import Encoded
from worker.core.route_headers import COPY_HEADER, CopyNote, FilteredNote, RouteNote
from worker.kafka_io.publisher import Publisher
from worker.settings.toml_values import inline

pytestmark = pytest.mark.integration

RECORDS = 12  # four in each of three partitions


@dataclass
class Stage:
    """The producer, the topics and the audit command of one test."""

    broker: Broker
    topics: Topics
    producer: KafkaProducer
    capsys: pytest.CaptureFixture[str]

    def named(self, role: str) -> str:
        """Return the topic of a route, of copies or of notes."""
        return f"{self.topics.output}.{role}"

    @property
    def routes(self) -> str:
        return (
            f'[{{name = "spam", path = "kind", in = ["spam"], drop = true}},'
            f'{{name = "alerts", label = "X", topic = "{self.named("alerts")}", also = true}},'
            f'{{name = "label", label = "X", topic = "{self.topics.output}.by.{{label}}"}}]'
        )

    def send(self, topic: str, at: tuple[int, int], *headers: tuple[str, bytes]) -> None:
        source = (SOURCE_HEADER, format_source(self.topics.input, *at))
        self.producer.send(topic, b"{}", partition=at[0], headers=[source, *headers])

    def label(self, *left_out: tuple[str, int, int]) -> None:
        """Feed the input, and publish outcomes as a worker would, except for those left out.

        Each partition has a plain result, one with a copy, one in the topic of its label, and spam.
        """
        by_label = self.named("by.X")
        alerts = RouteNote("", (CopyNote("alerts", self.named("alerts")),))
        note = FilteredNote("route", "spam", "0a1b2c", 0)
        for number in range(RECORDS):
            self.producer.send(self.topics.input, b"{}", partition=number % 3)
        ways: list[tuple[str, int, list[tuple[str, bytes]]]] = [
            (self.topics.output, 0, []),
            (self.topics.output, 1, [alerts.header]),
            (self.named("alerts"), 1, [(COPY_HEADER, b"alerts")]),
            (by_label, 2, [RouteNote("label").header]),
            (self.named("filtered"), 3, [note.header]),
        ]
        for partition in range(3):
            for topic, offset, headers in ways:
                if (topic.removeprefix(self.topics.output), partition, offset) not in left_out:
                    self.send(topic, (partition, offset), *headers)

    def command(self, *words: str) -> int:
        self.producer.flush()
        self.capsys.readouterr()
        flags = {
            "--bootstrap-servers": self.broker.bootstrap_servers,
            "--group-id": self.topics.group,
            "--input-topic": self.topics.input,
            "--output-topic": self.topics.output,
            "--output-dead-letter-topic": self.topics.dead,
            "--output-filtered-topic": self.named("filtered"),
            "--routes": self.routes,
        }
        given = (word for pair in flags.items() for word in pair)
        return main(["audit", *given, "--to-end", *words])

    def audit(self, *words: str, code: int = 0) -> dict[str, Any]:
        """Return the JSON that the audit prints; it must exit with `code`."""
        assert self.command("--json", "--delivery", "exactly_once", *words) == code
        report: dict[str, Any] = json.loads(self.capsys.readouterr().out)
        return report


@pytest.fixture
def stage(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, capsys: pytest.CaptureFixture[str]
) -> Iterator[Stage]:
    with KafkaProducer(bootstrap_servers=broker.bootstrap_servers) as producer:
        made = Stage(broker, topics, producer, capsys)
        roles = ("alerts", "filtered", "by.X")
        admin.create_topics([NewTopic(made.named(role), 3, 1) for role in roles])
        yield made


def test_routes_keep_every_promise(stage: Stage) -> None:
    """Each record has one main outcome over all topics; copies and notes are counted."""
    stage.label()
    report = stage.audit()
    assert (report["published"], report["filtered"], report["missing"]) == (9, 3, 0)
    assert report["published_to"] == {stage.topics.output: 6, stage.named("by.X"): 3}
    assert report["copies"] == {stage.named("alerts"): 3}
    assert report["filtered_by"] == {"route spam": 3}
    assert report["filtered_settings"] == {"0a1b2c": 3}
    assert (report["unjudged"], report["notes"]) == ({}, [])


@pytest.mark.parametrize(
    ("role", "offset", "broken"),
    [
        ("", 0, "missing"),
        (".by.X", 2, "missing"),
        (".filtered", 3, "missing"),
        (".alerts", 1, "uncopied"),
    ],
)
def test_whatever_is_lost_is_found(stage: Stage, role: str, offset: int, broken: str) -> None:
    """A result of any topic, a note, and a copy."""
    stage.label((role, 1, offset))
    report = stage.audit(code=1)
    assert (report["broken"], report[broken]) == ([broken], 1)
    assert report["examples"][broken][0].startswith(f"{stage.topics.input}/1/{offset}")


@pytest.mark.parametrize("role", ["", ".by.X", ".alerts", ".filtered"])
def test_whatever_is_published_twice_is_found(stage: Stage, role: str) -> None:
    """A second main outcome, in its topic or another one, and a second copy."""
    stage.label()
    headers = {
        "": [],
        ".by.X": [RouteNote("label").header],
        ".alerts": [(COPY_HEADER, b"alerts")],
        ".filtered": [FilteredNote("route", "spam", "0a1b2c", 0).header],
    }[role]
    stage.send(f"{stage.topics.output}{role}", (1, 1), *headers)
    report = stage.audit(code=1)
    assert "duplicated" in report["broken"]
    assert report["duplicated"] == 1


def test_records_of_others_in_a_topic_that_fits_a_label_are_left_out(
    stage: Stage, admin: KafkaAdminClient
) -> None:
    """For example those of another worker, whose topic has such a name."""
    stage.label()
    admin.create_topics([NewTopic(stage.named("by.other"), 3, 1)])
    stage.send(stage.named("by.other"), (1, 1))
    report = stage.audit()
    assert report["unjudged"] == {
        "record that no route sent, in a topic that only fits its name": 1
    }


def test_a_refused_copy_is_told(stage: Stage) -> None:
    """Its dead letter is no second outcome."""
    stage.label((".alerts", 2, 1))
    letter = (DEAD_LETTER_HEADER, b'{"reason":"result_too_large"}')
    stage.send(stage.topics.dead, (2, 1), letter, (COPY_HEADER, b"alerts"))
    report = stage.audit()
    assert (report["refused_copies"], report["uncopied"], report["dead_lettered"]) == (1, 0, 0)


def test_drained_topics_are_told(stage: Stage, admin: KafkaAdminClient) -> None:
    """A reader of a topic of routes may delete what it has read: nothing of it can be judged."""
    stage.label()
    stage.producer.flush()
    for role in ("by.X", "alerts"):
        admin.delete_records({TopicPartition(stage.named(role), n): -1 for n in range(3)})
    report = stage.audit()
    assert (report["published"], report["missing"], report["uncopied"]) == (6, 0, 0)
    assert report["unjudged"] == {
        "record whose result may have been removed": 3,
        "copy that retention may have removed": 3,
    }
    assert report["notes"][:2] == [
        f"{stage.named(role)}: 3 offsets removed before this audit" for role in ("by.X", "alerts")
    ]


def test_topics_of_earlier_routes_can_be_named(stage: Stage, admin: KafkaAdminClient) -> None:
    """Results and copies went there before the settings changed."""
    stage.label((".by.X", 0, 2))
    admin.create_topics([NewTopic(stage.named("old"), 3, 1)])
    old = RouteNote("old", (CopyNote("old-copies", stage.named("older")),))
    stage.send(stage.named("old"), (0, 2), old.header)
    assert stage.audit(code=1)["missing"] == 1
    report = stage.audit("--more-topics", stage.named("old"))
    assert (report["missing"], report["published_to"][stage.named("old")]) == (0, 1)
    older = stage.named("older")
    assert report["unjudged"] == {f"copy in {older}, which is not read": 1}
    assert f"copies in {older}, which is not read: name it with" in report["notes"][0]


def test_people_read_the_ways_of_records(stage: Stage) -> None:
    """By topic and by reason."""
    stage.label()
    assert stage.command() == 0
    printed = stage.capsys.readouterr().out
    assert "12 input records: 9 labelled, 3 filtered, 0 dead letters" in printed
    assert f"  to {stage.named('by.X')} 3" in printed
    assert "  filtered by route spam 3" in printed
    assert f"  copies in {stage.named('alerts')} 3" in printed
    assert "holds  every copy is there" in printed


# -- of a real worker --------------------------------------------------------------------------


def audit_of(site: Site, delivery: str, *more: str) -> dict[str, Any]:
    return audit(
        site.broker,
        site.topics,
        *("--delivery", delivery, "--routes", inline(site.settings["routes"])),
        *("--output-filtered-topic", site.notes, *more),
    )


@BOTH
def test_a_workers_routes_hold_through_a_replay(
    broker: Broker, topics: Topics, delivery: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A record that was dead first goes where its label says, and counts once."""
    failing = [True]

    def fail(given: list[str]) -> None:
        if failing and any(text == "bad 3" for text in given):
            raise ValueError("not today")

    site = Site(broker, topics)
    site.produce()
    model = ByText(on_predict=fail)
    with running(broker, topics, model, delivery=delivery, **site.settings) as worker:
        wait_until(site.finished(NUMBER - 1), what="all but one are labelled")
        wait_until(lambda: len(site.outcomes()["dead"]) == 1, what="one is dead")
        failing.clear()
        flags = ("--bootstrap-servers", broker.bootstrap_servers, "--group-id", topics.group)
        named = ("--input-topic", topics.input, "--output-dead-letter-topic", topics.dead)
        assert main(["dead-letters", "replay", *flags, *named]) == 0, capsys.readouterr()
        wait_until(site.finished(), what="the replay is labelled")
        wait_until(lambda: worker.value("streamlabel_inflight_records") == 0, what="none is left")
    verdict = audit_of(site, delivery, "--to-end")
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["replayed"], verdict["filtered"]) == (NUMBER, 1, 13)
    assert verdict["published_to"] == {topics.output: 52, f"{topics.output}.NEGATIVE": 25}
    assert verdict["copies"] == {site.spam: 36}
    assert (verdict["uncopied"], verdict["dead_lettered"]) == (0, 0)


@pytest.mark.allow_errors
def test_an_outcome_without_its_copies_is_not_committed(
    broker: Broker, topics: Topics, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A crash between the two: the successor publishes both."""
    site, enqueue, held = Site(broker, topics), Publisher._enqueue, []

    def hold(publisher: Publisher, outcome: Encoded) -> Any:
        if outcome.is_copy:
            held.append(outcome)
            return Future()  # no acknowledgement ever comes
        return enqueue(publisher, outcome)

    site.produce()
    settings = site.settings | {"shutdown_timeout": 3.0}
    with monkeypatch.context() as patched:
        patched.setattr(Publisher, "_enqueue", hold)
        with running(broker, topics, ByText(), **settings):
            wait_until(lambda: len(held) == 36, what="every copy waits")
    before = audit_of(site, "at_least_once", "--to-end")
    assert (before["broken"], before["uncopied"], before["copies"]) == (["uncopied"], 36, {})
    with running(broker, topics, ByText(), **settings) as worker:
        wait_until(lambda: worker.value("streamlabel_copies_total", route="english") == 36)
        wait_until(lambda: lag(broker, topics) == 0, what="all is committed")
    verdict = audit_of(site, "at_least_once")
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["copies"]) == (NUMBER, {site.spam: 36})
    assert verdict["duplicated"] >= 36
