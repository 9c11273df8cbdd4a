"""The audit's ledger: every broken promise is counted, and doubtful cases are not."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.audit_report import AuditReport
from worker.core.ledger import Ledger, Scope
from worker.core.outcome_order import Outlet
from worker.core.records import Partition
from worker.core.replay_outcomes import Kind

TOPIC = "texts.in"
RESULTS, DEAD_LETTERS = Outlet("result"), Outlet("dead_letter")
FIRST, SECOND = Partition(TOPIC, 0), Partition(TOPIC, 1)


def ledger_of(records: int = 10, *, limit: int = 10, compacted: bool = False) -> Ledger:
    """Return a ledger of one partition with some records, judged up to `limit`, ending at 20."""
    ledger = Ledger({FIRST: Scope(limit, 20)}, compacted={TOPIC} if compacted else ())
    for offset in range(records):
        ledger.record(FIRST, offset)
    return ledger


def publish(ledger: Ledger, offsets: Iterable[int], kind: Kind = "result") -> None:
    for at, offset in enumerate(offsets):
        ledger.outcome(Outlet(kind), 0, at, (TOPIC, 0, offset))


def offences(report: AuditReport) -> Mapping[str, int]:
    """Return the number of each offence in the report."""
    names = ("missing", "duplicated", "reordered", "orphans")
    return {name: getattr(report, name) for name in names if getattr(report, name)}


def test_one_outcome_each_keeps_every_promise() -> None:
    """Results and dead letters add up to the consumed records."""
    ledger = ledger_of()
    publish(ledger, (0, 1, 3, 4, 5, 6, 7, 9))
    publish(ledger, (2, 8), "dead_letter")
    report = ledger.report()
    assert (report.consumed, report.published, report.dead_lettered) == (10, 8, 2)
    assert (report.pending, report.unjudged, offences(report)) == (10, {}, {})
    assert report.breaches(0) == []


def test_a_record_without_an_outcome_is_missing() -> None:
    """Its coordinates are among the examples, and the promise is broken."""
    ledger = ledger_of()
    publish(ledger, [n for n in range(10) if n != 4])
    report = ledger.report()
    assert offences(report) == {"missing": 1}
    assert report.examples == {"missing": ["texts.in/0/4"]}
    assert report.consumed == 10
    assert report.breaches(None) == ["missing"]


def test_a_second_outcome_is_duplicated_and_not_reordered() -> None:
    """After a crash the worker resumes below its highest outcome."""
    ledger = ledger_of()
    publish(ledger, [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7, 8, 9])
    report = ledger.report()
    assert offences(report) == {"duplicated": 3}
    assert report.examples["duplicated"][0] == "texts.in/0/3 again as result 0/6"
    assert report.published == 10


@pytest.mark.parametrize(("allowed", "broken"), [(None, []), (1, []), (0, ["duplicated"])])
def test_duplicates_above_the_allowed_number_break_the_promise(
    allowed: int | None, broken: list[str]
) -> None:
    """At-least-once allows any number, exactly-once allows none."""
    ledger = ledger_of(2)
    publish(ledger, [0, 1, 1])
    assert ledger.report().breaches(allowed) == broken


def test_a_result_and_a_dead_letter_of_one_record_are_a_duplicate() -> None:
    """The record counts under its first outcome, and only that is reported as the first."""
    ledger = ledger_of(1)
    assert ledger.outcome(DEAD_LETTERS, 0, 0, (TOPIC, 0, 0))
    assert not ledger.outcome(RESULTS, 0, 0, (TOPIC, 0, 0))
    report = ledger.report()
    assert (report.published, report.dead_lettered) == (0, 1)
    assert offences(report) == {"duplicated": 1}


def test_two_swapped_outcomes_are_reordered() -> None:
    """The example has the late outcome's coordinates, and the offset that it follows."""
    ledger = ledger_of()
    publish(ledger, [0, 1, 2, 4, 3, 5, 6, 7, 8, 9])
    report = ledger.report()
    assert offences(report) == {"reordered": 1}
    assert report.examples["reordered"] == ["texts.in/0/3 after offset 4 in result 0"]
    assert report.breaches(None) == ["reordered"]


def test_order_is_checked_within_one_topic_and_partition() -> None:
    """A dead letter after a later result, or records of another partition between, are allowed."""
    ledger = Ledger({FIRST: Scope(9, 9), SECOND: Scope(9, 9)})
    for partition in (0, 1):
        for offset in range(9):
            ledger.record(Partition(TOPIC, partition), offset)
    for at, (partition, offset) in enumerate([(0, 5), (1, 0), (0, 6), (1, 1)]):
        ledger.outcome(RESULTS, 0, at, (TOPIC, partition, offset))
    ledger.outcome(DEAD_LETTERS, 0, 0, (TOPIC, 0, 2))
    ledger.outcome(RESULTS, 1, 0, (TOPIC, 0, 3))
    assert ledger.report().reordered == 0


@pytest.mark.parametrize(
    "source", [None, (TOPIC, 7, 0), (TOPIC, 0, 20), (TOPIC, 0, 2**62), (TOPIC, 0, 9)]
)
def test_an_outcome_without_a_record_is_an_orphan(source: tuple[str, int, int] | None) -> None:
    """No coordinates, an unknown partition, beyond the end, or in an unexplained gap."""
    ledger = ledger_of(records=9)
    publish(ledger, range(9))
    ledger.outcome(RESULTS, 2, 33, source)
    report = ledger.report()
    assert offences(report) == {"orphans": 1}
    assert report.examples["orphans"][0].startswith("result 2/33: ")
    assert report.breaches(None) == ["orphans"]


@pytest.mark.parametrize(
    ("source", "compacted", "reason"),
    [
        (("elsewhere", 0, 3), False, "another input topic"),
        ((TOPIC, 0, 12), False, "not committed"),
        ((TOPIC, 0, 1), False, "retention"),
        ((TOPIC, 0, 9), True, "compaction"),
    ],
)
def test_doubtful_outcomes_are_not_judged(
    source: tuple[str, int, int],
    compacted: bool,
    reason: str,
) -> None:
    """They are counted with a reason, and break no promise."""
    ledger = Ledger({FIRST: Scope(10, 20)}, compacted={TOPIC} if compacted else ())
    for offset in range(4, 9):
        ledger.record(FIRST, offset)
    ledger.set_starts({FIRST: 4})
    publish(ledger, range(4, 9))
    ledger.outcome(RESULTS, 0, 99, source)
    report = ledger.report()
    assert offences(report) == {}
    assert list(report.unjudged.values()) == [1]
    assert reason in next(iter(report.unjudged))


def test_records_beyond_the_limit_are_pending() -> None:
    """They need no outcome yet; records that retention has removed are not counted."""
    ledger = Ledger({FIRST: Scope(5, 20), SECOND: Scope(5, 20)})
    for offset in range(20):
        ledger.record(FIRST, offset)
    ledger.set_starts({FIRST: 0, SECOND: 18})
    publish(ledger, range(5))
    report = ledger.report()
    assert (report.consumed, report.pending) == (5, 15 + 2)
    assert offences(report) == {}


def test_outcomes_removed_by_retention_are_not_missing() -> None:
    """Records before the first remaining outcome can't be judged; later ones can."""
    ledger = ledger_of()
    publish(ledger, [4, 5, 7, 8, 9])
    report = ledger.report({(RESULTS, FIRST): False})
    assert offences(report) == {"missing": 1}
    assert report.examples["missing"] == ["texts.in/0/6"]
    assert report.unjudged == {"record whose result may have been removed": 4}


def test_no_record_is_missing_if_a_topic_of_outcomes_was_emptied() -> None:
    """The dead-letter topic may have had an outcome of every record."""
    ledger = ledger_of()
    publish(ledger, range(1, 10))
    report = ledger.report({(RESULTS, FIRST): False, (DEAD_LETTERS, FIRST): False})
    assert offences(report) == {}
    assert report.unjudged == {"record whose dead_letter may have been removed": 1}


def test_no_record_is_missing_if_a_topic_of_outcomes_is_compacted() -> None:
    """Compaction may have removed any outcome, not only the first ones."""
    ledger = ledger_of()
    publish(ledger, [0, 9])
    report = ledger.report({(RESULTS, FIRST): True})
    assert (report.missing, sum(report.unjudged.values())) == (0, 8)


def test_a_duplicate_whose_first_copy_was_removed_is_not_reordered() -> None:
    """Retention removed results 0 to 7 of 0..9, then 5 to 9 were repeated; 8 is now the first."""
    ledger = ledger_of()
    publish(ledger, [8, 9, 5, 6, 7, 8, 9])
    report = ledger.report({(RESULTS, FIRST): False})
    assert offences(report) == {"duplicated": 2}
    assert report.unjudged == {
        "record whose result may have been removed": 5,
        "outcome whose first copy may have been removed": 3,
    }
    assert offences(ledger.report()) == {"duplicated": 2, "missing": 5, "reordered": 3}


def test_reordered_outcomes_after_the_first_remaining_one_are_found() -> None:
    """A removed first copy before that one would have been out of order too."""
    ledger = ledger_of()
    publish(ledger, [4, 5, 7, 6, 8, 9])
    report = ledger.report({(RESULTS, FIRST): False})
    assert offences(report) == {"reordered": 1}
    assert report.examples["reordered"] == ["texts.in/0/6 after offset 7 in result 0"]


def test_no_outcome_is_reordered_if_its_topic_is_compacted() -> None:
    """It keeps the last copy of a key, and the first one may have been in order."""
    ledger = ledger_of()
    publish(ledger, [4, 5, 7, 6, 8, 9])
    report = ledger.report({(RESULTS, FIRST): True})
    assert offences(report) == {}
    assert report.unjudged["outcome whose first copy may have been removed"] == 1


def test_a_record_of_another_producer_is_not_judged() -> None:
    """It has no coordinates, so it is not an outcome."""
    ledger = ledger_of(0)
    ledger.leave_out("record without coordinates, of another producer")
    report = ledger.report()
    assert (offences(report), sum(report.unjudged.values())) == ({}, 1)


@pytest.mark.parametrize("at", [3, 12, 99])
def test_an_outcome_older_than_every_record_belongs_to_an_older_topic(at: int) -> None:
    """The topic was deleted and created again; a new record may have the same coordinates."""
    ledger = Ledger({FIRST: Scope(10, 20)})
    for offset in range(10):
        ledger.record(FIRST, offset, 1000 + offset)
        ledger.outcome(RESULTS, 0, offset, (TOPIC, 0, offset), 1000 + offset)
    ledger.outcome(RESULTS, 0, 99, (TOPIC, 0, at), 999)
    report = ledger.report()
    assert (offences(report), report.published) == ({}, 10)
    assert report.unjudged == {"outcome of an older topic of this name": 1}


@pytest.mark.parametrize(("end", "orphans"), [(0, 0), (20, 1)])
def test_outcomes_of_a_topic_that_was_always_empty_belong_to_an_older_one(
    end: int, orphans: int
) -> None:
    """If the topic had records that were removed, the outcome is an orphan."""
    ledger = Ledger({FIRST: Scope(0, end), SECOND: Scope(0, 0)})
    ledger.outcome(RESULTS, 0, 0, (TOPIC, 1, 5))
    assert ledger.report().orphans == orphans


def test_records_before_a_late_groups_first_outcome_are_not_missing() -> None:
    """`input.start = latest` skips the records before the group."""
    ledger = ledger_of()
    publish(ledger, [5, 6, 8, 9])
    publish(ledger, [4], "dead_letter")
    report = ledger.report(late=True)
    assert offences(report) == {"missing": 1}
    assert report.unjudged == {"record before the group's first outcome": 4}


def test_the_reason_that_covers_most_records_is_reported() -> None:
    """Retention explains more records here than the group's late start."""
    ledger = ledger_of()
    publish(ledger, [5, 6, 7, 8, 9])
    publish(ledger, [2], "dead_letter")
    report = ledger.report({(RESULTS, FIRST): False, (DEAD_LETTERS, FIRST): False}, late=True)
    assert report.unjudged == {"record whose result may have been removed": 4}


def test_examples_are_limited_and_counts_are_complete() -> None:
    """Millions of broken promises don't fill the memory with examples."""
    ledger = ledger_of(records=200, limit=200)
    for at in range(50):
        ledger.outcome(RESULTS, 0, at, None)
    report = ledger.report()
    assert offences(report) == {"missing": 200, "orphans": 50}
    assert len(report.examples["missing"]) == 10
    publish(ledger, range(199, -1, -1))
    report = ledger.report()
    assert offences(report) == {"reordered": 199, "orphans": 50}
    assert {name: len(shown) for name, shown in report.examples.items()} == {
        "reordered": 10,
        "orphans": 10,
    }


def test_gaps_need_no_memory() -> None:
    """Offsets of a compacted or transactional topic may be far apart."""
    far = 10**15
    ledger = Ledger({FIRST: Scope(far + 1, far + 1)})
    for offset in (0, 7, far):
        ledger.record(FIRST, offset)
    publish(ledger, [0, far])
    report = ledger.report()
    assert report.examples == {"missing": ["texts.in/0/7"]}
    assert report.consumed == 3


def test_several_input_topics_are_judged_separately() -> None:
    """Two topics may have the same offsets, and have their own oldest timestamps."""
    other = Partition("more.in", 0)
    ledger = Ledger({FIRST: Scope(2, 2), other: Scope(2, 2)})
    for offset in range(2):
        ledger.record(FIRST, offset, 1_000)
        ledger.record(other, offset, 10)
    for at, (partition, timestamp_ms) in enumerate([(FIRST, 1_000), (other, 10)]):
        for offset in range(2):
            ledger.outcome(RESULTS, 0, 2 * at + offset, (*partition, offset), timestamp_ms)
    ledger.outcome(RESULTS, 0, 9, (*FIRST, 0), 10)
    ledger.outcome(RESULTS, 0, 10, ("elsewhere", 0, 0), 10)
    report = ledger.report()
    assert (report.published, offences(report)) == (4, {})
    assert report.unjudged == {
        "outcome of an older topic of this name": 1,
        "outcome of another input topic": 1,
    }


@pytest.mark.parametrize(("limit", "pending"), [(7, 0), (5, 2), (0, 4)])
def test_only_the_range_of_a_group_is_judged(limit: int, pending: int) -> None:
    """Records around it need no outcome, and an outcome that one of them has proves nothing."""
    ledger = Ledger({FIRST: Scope(limit, 20, start=3, range_end=7)})
    for offset in range(20):
        ledger.record(FIRST, offset)
    publish(ledger, [2, *range(3, limit), 7, 19])
    report = ledger.report()
    assert (report.consumed, report.published) == (max(0, limit - 3), max(0, limit - 3))
    assert (report.pending, offences(report)) == (pending, {})
    assert report.unjudged == {"outcome of a record outside the range": 3}


def test_a_record_of_the_range_without_an_outcome_is_missing() -> None:
    ledger = Ledger({FIRST: Scope(7, 20, start=3, range_end=7)})
    for offset in range(20):
        ledger.record(FIRST, offset)
    publish(ledger, [3, 4, 6, 25])
    assert offences(ledger.report()) == {"missing": 1, "orphans": 1}


@pytest.mark.parametrize(
    ("compacted", "of_range", "unproven", "broken"),
    [(False, False, 4, []), (False, True, 4, ["unproven"]), (True, True, 0, [])],
)
def test_a_range_is_not_proven_if_outcomes_may_have_been_removed(
    compacted: bool, of_range: bool, unproven: int, broken: list[str]
) -> None:
    """Compaction is a choice, and a worker's old outcomes are removed in time."""
    ledger = ledger_of()
    publish(ledger, [4, 5, 6, 7, 8, 9])
    report = ledger.report({(DEAD_LETTERS, FIRST): compacted}, of_range=of_range)
    assert (report.unproven, report.missing, sum(report.unjudged.values())) == (unproven, 0, 4)
    assert report.breaches(0) == broken


@given(st.lists(st.integers(0, 29), max_size=90))
def test_the_counts_agree_with_a_simple_model(published: list[int]) -> None:
    """For any published outcomes in any order, compared with a slower and simpler count."""
    ledger = Ledger({FIRST: Scope(20, 20)})
    for offset in range(20):
        ledger.record(FIRST, offset)
    publish(ledger, published)
    known = [offset for offset in published if offset < 20]
    firsts = list(dict.fromkeys(known))
    late = sum(offset < max(firsts[:n], default=-1) for n, offset in enumerate(firsts))
    report = ledger.report()
    assert report.published == len(firsts)
    assert report.missing == 20 - len(firsts)
    assert report.duplicated == len(known) - len(firsts)
    assert report.reordered == late
    assert report.orphans == len(published) - len(known)
    assert report.consumed == 20
