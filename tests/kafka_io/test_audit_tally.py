"""The audit's reading of outcomes: routes, copies, notes of filtered records, and their counts."""

from __future__ import annotations

import pytest

from worker.core.audit_report import AuditReport
from worker.core.audited_topics import audited_topics
from worker.core.coordinates import GROUP_HEADER, SOURCE_HEADER, format_source
from worker.core.dead_records import DeadRecords
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.ledger import Ledger
from worker.core.outcome_order import Outlet
from worker.core.records import Headers, Partition
from worker.core.replay import Replay
from worker.core.route_headers import COPY_HEADER, CopyNote, FilteredNote, RouteNote
from worker.core.scope import Scope
from worker.core.topics import TopicInfo
from worker.kafka_io.audit_outlets import removed_from
from worker.kafka_io.audit_tally import OutcomeTally
from worker.kafka_io.reader import AuditRecord
from worker.settings import RouteSettings, WorkerTopics

TOPIC = "texts.in"
LABELLED, ANGRY = Outlet("result", "texts.labelled"), Outlet("result", "texts.angry")
COPIES, NOTES = Outlet("copy", "texts.alerts"), Outlet("filtered", "texts.filtered")
DEAD = Outlet("dead_letter", "texts.dead")
ALERT = RouteNote("", (CopyNote("alerts", "texts.alerts"),)).header
COPY = (COPY_HEADER, b"alerts")
LETTER = (DEAD_LETTER_HEADER, b'{"reason":"not_json","source":{"timestamp_ms":5}}')


class Story:
    """A ledger of four records, whose earliest timestamp is 5, and a tally."""

    def __init__(self, fitting: str = "", *, of_range: bool = False) -> None:
        scopes = {Partition(TOPIC, 0): Scope(4, 4)}
        self.dead = DeadRecords(scopes)
        self.ledger = Ledger(scopes, dead=self.dead)
        for offset in range(4):
            self.ledger.record(Partition(TOPIC, 0), offset, 5)
        self.tally = OutcomeTally(self.ledger, {fitting}, "group", of_range=of_range)
        self._at = 0

    def add(self, outlet: Outlet, offset: int, *headers: tuple[str, bytes]) -> None:
        self.read(outlet, [(SOURCE_HEADER, format_source(TOPIC, 0, offset)), *headers])

    def read(self, outlet: Outlet, headers: Headers) -> None:
        self._at += 1
        self.tally.add(outlet, AuditRecord(0, self._at, headers, 5, b"", None))

    @property
    def report(self) -> AuditReport:
        return self.ledger.report()


def test_each_outcome_is_counted_by_topic_and_reason() -> None:
    """A filtered record also by the digest of the settings that decided."""
    story = Story()
    story.add(LABELLED, 0, ALERT)
    story.add(ANGRY, 1, RouteNote("angry").header)
    story.add(COPIES, 0, COPY)
    story.add(NOTES, 2, FilteredNote("route", "spam", "0a1b", 5).header)
    story.add(DEAD, 3, LETTER)
    report, tally = story.report, story.tally
    assert (report.published, report.filtered, report.dead_lettered) == (2, 1, 1)
    assert (report.copies, report.breaches(0)) == ({"texts.alerts": 1}, [])
    assert (tally.filtered, tally.digests) == ({"route spam": 1}, {"0a1b": 1})
    assert tally.published_to == {"texts.labelled": 1, "texts.angry": 1}
    assert tally.reasons == {"not_json": 1}


def test_a_copy_in_a_topic_of_results_is_no_outcome() -> None:
    """A topic may be that of one route, and take the copies of another."""
    story = Story()
    story.add(LABELLED, 0, RouteNote("", (CopyNote("alerts", "texts.angry"),)).header)
    story.add(ANGRY, 0, COPY)
    assert (story.report.published, story.report.copies) == (1, {"texts.angry": 1})
    assert story.report.duplicated == 0


def test_the_dead_letter_of_a_copy_is_no_outcome() -> None:
    story = Story()
    story.add(LABELLED, 0, ALERT)
    story.add(DEAD, 0, LETTER, COPY)
    assert (story.report.refused_copies, story.report.uncopied) == (1, 0)
    assert (story.report.dead_lettered, story.tally.reasons) == (0, {})


def test_a_copy_that_a_replay_repeats_is_not_judged() -> None:
    story = Story()
    story.dead.add((TOPIC, 0, 3), 5)
    replay = Replay((TOPIC, 0, 3), 1).header
    story.add(LABELLED, 3, ALERT, replay)
    story.add(COPIES, 3, COPY)
    story.add(COPIES, 3, COPY, replay)
    assert story.report.unjudged == {"copy that a replay repeats": 1}


@pytest.mark.parametrize(
    ("outlet", "headers", "reason"),
    [
        (ANGRY, [], "record that no route sent, in a topic that only fits its name"),
        (COPIES, [RouteNote("angry").header], "result in a topic of copies"),
        (LABELLED, [(GROUP_HEADER, b"backfill")], "outcome of another group"),
    ],
)
def test_records_of_others_are_left_out(
    outlet: Outlet, headers: list[tuple[str, bytes]], reason: str
) -> None:
    """Each with its reason."""
    story = Story(fitting="texts.angry")
    story.add(outlet, 0, *headers)
    assert (story.report.unjudged, story.report.published) == ({reason: 1}, 0)


def test_a_record_without_coordinates_is_of_another_producer() -> None:
    story = Story()
    story.read(LABELLED, [ALERT])
    assert story.report.unjudged == {"record without coordinates, of another producer": 1}


def test_a_backfill_counts_only_what_names_its_group() -> None:
    """Copies and notes too."""
    story = Story(of_range=True)
    own = (GROUP_HEADER, b"group")
    story.add(LABELLED, 0, ALERT, own)
    story.add(LABELLED, 1)
    story.add(COPIES, 0, COPY, own)
    story.add(COPIES, 0, COPY)
    story.add(NOTES, 2, FilteredNote("prepare.function", "", "1", 5).header, own)
    assert story.report.unjudged == {"outcome of another group": 2}
    assert (story.report.published, story.report.filtered) == (1, 1)
    assert story.tally.filtered == {"prepare.function": 1}


def test_a_note_of_an_older_topic_is_not_judged() -> None:
    """The note states the timestamp of its record."""
    story = Story()
    story.add(NOTES, 2, FilteredNote("route", "spam", "0a1b", 4).header)
    assert story.report.unjudged == {"outcome of an older topic of this name": 1}


def test_removed_outcomes_are_found_in_every_topic() -> None:
    """By the partition that an input partition feeds; a topic that is not there has lost none."""
    routes = [
        RouteSettings.model_validate(document)
        for document in ({"topic": "angry", "label": "x"}, {"topic": "new", "also": True})
    ]
    outlets = audited_topics(WorkerTopics(("in",), "out", "dead"), routes)
    starts = {"out": {0: 0}, "angry": {0: 0, 1: 7}, "dead": {0: 0}}
    infos = {name: TopicInfo(len(one), 1) for name, one in starts.items()}
    partitions = [Partition("in", number) for number in range(4)]
    assert removed_from(outlets, partitions, starts, infos) == {
        (Outlet(kind, "angry"), Partition("in", number)): False
        for kind in ("result", "copy")
        for number in (1, 3)
    }
