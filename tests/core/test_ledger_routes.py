"""The audit's ledger with routes: results in several topics, filtered records, and copies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.audit_report import AuditReport
from worker.core.dead_records import DeadRecords
from worker.core.ledger import Ledger, Scope
from worker.core.outcome_order import Outlet
from worker.core.records import Partition
from worker.core.replay import Replay
from worker.core.route_headers import CopyNote

TOPIC = "texts.in"
FIRST = Partition(TOPIC, 0)
LABELLED, ANGRY = Outlet("result", "texts.labelled"), Outlet("result", "texts.angry")
NOTES, DEAD = Outlet("filtered", "texts.filtered"), Outlet("dead_letter", "texts.dead")
ALERTS = Outlet("copy", "texts.alerts")
ALERT = CopyNote("alerts", "texts.alerts")


def ledger_of(records: int = 10, dead: DeadRecords | None = None) -> Ledger:
    """Return a ledger of one partition with some records, which ends at offset 20."""
    ledger = Ledger({FIRST: Scope(10, 20)}, dead=dead)
    for offset in range(records):
        ledger.record(FIRST, offset)
    return ledger


def publish(
    ledger: Ledger, outlet: Outlet, offsets: Iterable[int], copies: Collection[CopyNote] = ()
) -> None:
    for at, offset in enumerate(offsets):
        ledger.outcome(outlet, 0, at, (TOPIC, 0, offset), copies=copies)


def copy(ledger: Ledger, offsets: Iterable[int], outlet: Outlet = ALERTS) -> None:
    for at, offset in enumerate(offsets):
        ledger.copy(outlet, 0, at, (TOPIC, 0, offset), route="alerts")


def main_counts(report: AuditReport) -> tuple[int, int, int, int]:
    return report.published, report.filtered, report.dead_lettered, report.missing


def test_each_record_has_one_main_outcome_over_all_topics() -> None:
    """Results of two topics, notes and dead letters add up; each topic has an order of its own."""
    ledger = ledger_of()
    publish(ledger, LABELLED, (1, 4, 5, 9))
    publish(ledger, ANGRY, (0, 2, 6))
    publish(ledger, NOTES, (3, 7))
    publish(ledger, DEAD, (8,))
    report = ledger.report()
    assert main_counts(report) == (7, 2, 1, 0)
    assert (report.consumed, report.breaches(0)) == (10, [])


@pytest.mark.parametrize("second", [LABELLED, ANGRY, NOTES, DEAD])
def test_a_second_main_outcome_is_duplicated_in_any_topic(second: Outlet) -> None:
    """The example names the topic."""
    ledger = ledger_of(1)
    publish(ledger, LABELLED, (0,))
    ledger.outcome(second, 0, 7, (TOPIC, 0, 0))
    report = ledger.report()
    assert (report.duplicated, main_counts(report)) == (1, (1, 0, 0, 0))
    assert report.examples["duplicated"] == [f"texts.in/0/0 again as {second} 0/7"]


def test_a_route_topic_has_its_own_order() -> None:
    """A result that follows a later record's in the same topic is out of order."""
    ledger = ledger_of()
    publish(ledger, LABELLED, (0, 2, 4, 6, 8))
    publish(ledger, ANGRY, (1, 5, 3, 7, 9))
    report = ledger.report()
    assert report.examples == {"reordered": ["texts.in/0/3 after offset 5 in result texts.angry 0"]}


def test_announced_copies_are_counted_and_break_nothing() -> None:
    """They are no second outcome."""
    ledger = ledger_of()
    publish(ledger, LABELLED, range(7))
    publish(ledger, ANGRY, range(7, 10), [ALERT])
    copy(ledger, range(7, 10))
    report = ledger.report()
    assert (main_counts(report), report.copies) == ((10, 0, 0, 0), {"texts.alerts": 3})
    assert (report.breaches(0), report.unjudged) == ([], {})


def test_an_announced_copy_that_is_not_there_is_found() -> None:
    """With the coordinates of its record, its topic and its route."""
    ledger = ledger_of()
    publish(ledger, LABELLED, range(10), [ALERT])
    copy(ledger, (n for n in range(10) if n != 4))
    report = ledger.report()
    assert (report.uncopied, report.breaches(None)) == (1, ["uncopied"])
    assert report.examples == {"uncopied": ["texts.in/0/4 to texts.alerts by route alerts"]}


def test_a_repeated_copy_is_duplicated() -> None:
    """Copies that are late are reordered, as results are."""
    ledger = ledger_of()
    publish(ledger, LABELLED, range(10), [ALERT])
    copy(ledger, (0, 1, 2, 2, 4, 3, *range(5, 10)))
    report = ledger.report()
    assert (report.duplicated, report.reordered, report.uncopied) == (1, 1, 0)
    assert report.breaches(0) == ["duplicated", "reordered"]


def test_the_copy_of_an_unknown_record_is_an_orphan() -> None:
    """A copy beyond the committed offsets is not judged."""
    ledger = ledger_of(9)
    publish(ledger, LABELLED, range(9))
    copy(ledger, (9, 12))
    report = ledger.report()
    assert report.examples == {"orphans": ["copy texts.alerts 0/0: texts.in/0/9"]}
    assert report.unjudged == {"outcome of a record that is not committed yet": 1}


def test_a_copy_without_an_announcement_proves_nothing() -> None:
    """Its record's result may have been another one before a crash."""
    ledger = ledger_of()
    publish(ledger, LABELLED, range(10))
    copy(ledger, (3,))
    report = ledger.report()
    assert (report.breaches(0), report.unjudged) == ([], {"copy that no result announces": 1})


@pytest.mark.parametrize("first", [True, False])
def test_copies_of_two_different_outcomes_of_a_record_are_doubtful(first: bool) -> None:
    """A crash between them, and another route since: one of the two needs no copies."""
    ledger = ledger_of()
    publish(ledger, LABELLED, range(10), [ALERT] if first else [])
    publish(ledger, ANGRY, (5,), [] if first else [ALERT])
    copy(ledger, (n for n in range(10) if n != 5) if first else ())
    report = ledger.report()
    assert (report.duplicated, report.uncopied) == (1, 0)
    assert report.unjudged == {"copy that only some outcomes of its record announce": 1}


def test_the_same_announcement_twice_still_needs_its_copy() -> None:
    """A crash repeats the outcome and its copies."""
    ledger = ledger_of(1)
    publish(ledger, LABELLED, (0, 0), [ALERT])
    assert ledger.report().uncopied == 1


def test_a_refused_copy_is_told_by_a_dead_letter() -> None:
    """It is no second outcome of its record, and not missing."""
    ledger = ledger_of()
    publish(ledger, LABELLED, range(10), [ALERT, CopyNote("all", "texts.all")])
    copy(ledger, range(9))
    for at in range(10):
        ledger.copy(Outlet("copy", "texts.all"), 0, at, (TOPIC, 0, at), route="all")
    ledger.copy(DEAD, 0, 0, (TOPIC, 0, 9), route="alerts")
    report = ledger.report()
    assert (report.refused_copies, report.uncopied, report.breaches(0)) == (1, 0, [])
    assert main_counts(report) == (10, 0, 0, 0)


def test_the_dead_letter_of_a_copy_that_was_not_announced_changes_nothing() -> None:
    ledger = ledger_of()
    publish(ledger, LABELLED, range(10))
    ledger.copy(DEAD, 0, 0, (TOPIC, 0, 9), route="alerts")
    assert ledger.report().refused_copies == 0


def test_copies_that_retention_removed_are_not_missing() -> None:
    """Those after the first remaining copy are."""
    ledger = ledger_of()
    publish(ledger, LABELLED, range(10), [ALERT])
    copy(ledger, (5, 6, 8, 9))
    report = ledger.report({(ALERTS, FIRST): False})
    assert report.examples == {"uncopied": ["texts.in/0/7 to texts.alerts by route alerts"]}
    assert report.unjudged == {"copy that retention may have removed": 5}


@pytest.mark.parametrize("copied", [(), (1, 9)])
def test_no_copy_is_missing_in_a_compacted_topic(copied: tuple[int, ...]) -> None:
    """Nor in a topic that retention has emptied."""
    ledger = ledger_of()
    publish(ledger, LABELLED, range(10), [ALERT])
    copy(ledger, copied)
    report = ledger.report({(ALERTS, FIRST): True})
    assert report.unjudged == {"copy that compaction may have removed": 10 - len(copied)}
    assert report.uncopied == 0


def test_a_missing_copy_proves_nothing_where_dead_letters_were_removed() -> None:
    """One of them may have told that its topic refused it."""
    ledger = ledger_of()
    publish(ledger, LABELLED, (n for n in range(10) if n != 6), [ALERT])
    publish(ledger, DEAD, (6,))
    report = ledger.report({(DEAD, FIRST): False, (DEAD, Partition(TOPIC, 1)): True})
    assert report.unjudged == {"copy whose dead letter retention may have removed": 6}
    assert report.uncopied == 3


def test_copies_in_a_topic_that_is_not_read_are_not_judged() -> None:
    """The settings have another name by now."""
    ledger = ledger_of()
    publish(ledger, LABELLED, range(10), [ALERT])
    assert ledger.copy_topics() == {"texts.alerts"}
    report = ledger.report(unread=["texts.alerts"])
    assert (report.uncopied, report.unjudged) == (
        0,
        {"copy in texts.alerts, which is not read": 10},
    )


def test_a_drained_route_topic_makes_its_records_doubtful() -> None:
    """The removed results belong to records before the first one that remains."""
    ledger = ledger_of()
    publish(ledger, LABELLED, (0, 2, 4, 6, 8))
    publish(ledger, ANGRY, (5, 9))
    report = ledger.report({(ANGRY, FIRST): False, (ALERTS, FIRST): False})
    assert report.examples == {"missing": ["texts.in/0/7"]}
    assert report.unjudged == {"record whose result may have been removed": 2}


def test_copies_are_no_first_outcome_of_a_late_group() -> None:
    """Records before the group's first result, note or dead letter are not judged."""
    ledger = ledger_of()
    publish(ledger, LABELLED, (6, 8, 9))
    publish(ledger, NOTES, (5,))
    copy(ledger, (2,))
    report = ledger.report(late=True)
    assert report.unjudged["record before the group's first outcome"] == 5
    assert report.examples["missing"] == ["texts.in/0/7"]


def replayed(*outcomes: tuple[Outlet, int], offset: int = 4) -> AuditReport:
    """Return the report of a dead record and its replays, labelled from the dead letter."""
    source = (TOPIC, 0, 4)
    dead = DeadRecords({FIRST: Scope(10, 20)})
    dead.add(source, 0)
    ledger = ledger_of(dead=dead)
    publish(ledger, LABELLED, (n for n in range(10) if n not in {4, offset}))
    for at, (outlet, attempt) in enumerate(outcomes):
        replay = Replay(source, attempt) if attempt else None
        place = offset if attempt else 4
        ledger.outcome(outlet, 0, 50 + at, (TOPIC, 0, place), 0, replay)
    return ledger.report()


@pytest.mark.parametrize("offset", [4, 9])
def test_a_replay_may_end_as_a_filtered_record(offset: int) -> None:
    """From its dead letter, or as a record of the input: it counts as filtered, once."""
    report = replayed((NOTES, 1), (DEAD, 0), offset=offset)
    counts = (9 - (offset == 9), 1, 0, 0)
    assert (main_counts(report), report.replayed, report.breaches(0)) == (counts, 0, [])


def test_a_second_note_of_a_replayed_record_is_duplicated() -> None:
    """So is a note of a later attempt, and one beside the result of an attempt."""
    assert replayed((NOTES, 1), (NOTES, 2), (DEAD, 0)).duplicated == 1
    assert replayed((LABELLED, 1), (NOTES, 1), (DEAD, 0)).duplicated == 1
    assert replayed((LABELLED, 1), (NOTES, 0)).duplicated == 1


@pytest.mark.parametrize(
    ("was_dead", "duplicated", "unjudged"),
    [(True, 0, {"copy that a replay repeats": 1}), (False, 1, {})],
)
def test_a_replay_may_repeat_a_copy(
    was_dead: bool, duplicated: int, unjudged: dict[str, int]
) -> None:
    """The broker refused its result after it had acknowledged the copy beside it."""
    source = (TOPIC, 0, 4)
    dead = DeadRecords({FIRST: Scope(10, 20)})
    if was_dead:
        dead.add(source, 0)
    ledger, replay = ledger_of(dead=dead), Replay(source, 1)
    publish(ledger, LABELLED, (n for n in range(10) if n != 4))
    ledger.outcome(LABELLED, 0, 50, source, 0, replay, copies=[ALERT])
    for at, again in enumerate((None, replay)):
        ledger.copy(ALERTS, 0, at, source, 0, again, route="alerts")
    report = ledger.report()
    assert (report.duplicated, report.unjudged, report.uncopied) == (duplicated, unjudged, 0)


OUTLETS = (LABELLED, ANGRY, NOTES, DEAD)


@given(st.lists(st.tuples(st.sampled_from(OUTLETS), st.integers(0, 11)), max_size=40))
def test_the_counts_agree_with_a_simple_model(published: list[tuple[Outlet, int]]) -> None:
    """For any outcomes, read kind by kind: each record counts once, under its first one."""
    ledger = ledger_of()
    published.sort(key=lambda one: OUTLETS.index(one[0]))
    kinds: dict[int, str] = {}
    for at, (outlet, offset) in enumerate(published):
        counted = ledger.outcome(outlet, 0, at, (TOPIC, 0, offset))
        assert counted is (offset < 10 and offset not in kinds)
        if offset < 10:
            kinds.setdefault(offset, outlet.kind)
    report, expected = ledger.report(), Counter(kinds.values())
    assert main_counts(report) == (
        expected["result"],
        expected["filtered"],
        expected["dead_letter"],
        10 - len(kinds),
    )
