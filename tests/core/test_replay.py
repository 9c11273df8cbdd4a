"""The header of a replay, and the audit's judgement of replayed records."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.audit_report import AuditReport
from worker.core.dead_records import DeadRecords
from worker.core.ledger import Ledger, Scope
from worker.core.outcome_order import Outlet
from worker.core.records import Partition
from worker.core.replay import MOST_ATTEMPTS, REPLAY_HEADER, Replay, is_replay, parse_replay
from worker.core.replay_outcomes import Kind

TOPIC, OTHER = "posts", "more"
FIRST, SECOND = Partition(TOPIC, 0), Partition(OTHER, 0)
DEAD = (TOPIC, 0, 4)  # the record that is dead first

# -- the header --------------------------------------------------------------------------------


@given(
    st.text(max_size=249), st.integers(0, 2**31), st.integers(0, 2**63 - 1), st.integers(1, 1000)
)
def test_a_header_is_read_as_it_was_written(
    topic: str, partition: int, offset: int, attempt: int
) -> None:
    replay = Replay((topic, partition, offset), attempt)
    name, value = replay.header
    assert name == REPLAY_HEADER
    assert parse_replay(value) == (replay if len(value) <= 1000 else None)


def document(attempt: Any = 1, **place: Any) -> bytes:
    source = {"topic": TOPIC, "partition": 0, "offset": 4} | place
    return json.dumps({"source": source, "attempt": attempt}).encode()


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xff",
        b"[]",
        b"7",
        b"null",
        b"[" * 999,
        b'{"attempt": 1}',
        b'{"source": 7, "attempt": 1}',
        document(topic=7),
        document(partition="0"),
        document(offset=-1),
        document(offset=2**63),
        document(offset=True),
        document(offset=1.5),
        document(0),
        document(MOST_ATTEMPTS + 1),
        document("1"),
        document(more="x" * 1_000) + b" ",
    ],
)
def test_any_other_value_names_no_replay(value: bytes | None) -> None:
    """It may come from any producer."""
    assert parse_replay(value) is None


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_not(value: bytes) -> None:
    found = parse_replay(value)
    assert found is None or parse_replay(found.header[1]) == found


def test_a_record_is_a_replay_by_its_header() -> None:
    header = Replay(DEAD, 1).header
    assert is_replay([("key", b"value"), header])
    assert not is_replay([("key", header[1])])
    assert not is_replay([])


# -- the audit -----------------------------------------------------------------------------------


class Story:
    """A ledger of ten records of each of two topics, and outcomes in the order of a reader.

    `died` are records whose dead letter is read: before the results, as the audit reads it.
    """

    def __init__(
        self,
        *,
        limit: int = 10,
        start: int = 0,
        died: Collection[tuple[str, int, int]] = (DEAD,),
        died_ms: int = 0,
        purged: bool = False,
    ) -> None:
        scopes = {FIRST: Scope(limit, 10), SECOND: Scope(10, 10)}
        dead = DeadRecords(scopes)
        for source in died:
            dead.add(source, died_ms)
        dead.removed_from([FIRST] if purged else [])
        self.ledger = Ledger(scopes, dead=dead)
        for offset in range(start, limit):
            self.ledger.record(FIRST, offset)
        for offset in range(10):
            self.ledger.record(SECOND, offset)
        self.ledger.set_starts({FIRST: start})
        self.reasons = 0
        self._at = 0

    def outcome(self, kind: Kind, source: tuple[str, int, int], replay: Replay | None) -> bool:
        self._at += 1
        return self.ledger.outcome(Outlet(kind), 0, self._at, source, 0, replay)

    def results(self, *sources: tuple[str, int, int], replay: Replay | None = None) -> Story:
        for source in sources:
            self.outcome("result", source, replay)
        return self

    def dead(self, *sources: tuple[str, int, int], replay: Replay | None = None) -> Story:
        for source in sources:
            self.reasons += self.outcome("dead_letter", source, replay)
        return self

    @property
    def report(self) -> AuditReport:
        """The report; every dead letter that counts was told when it was added."""
        report = self.ledger.report()
        assert report.consumed == report.published + report.dead_lettered + report.missing
        return report


def of(topic: str, *left_out: int, until: int = 10) -> list[tuple[str, int, int]]:
    return [(topic, 0, offset) for offset in range(until) if offset not in left_out]


def attempt(number: int) -> Replay:
    return Replay(DEAD, number)


def numbers(report: AuditReport) -> Mapping[str, int]:
    names = ("published", "dead_lettered", "replayed", "missing", "duplicated", "reordered")
    return {n: getattr(report, n) for n in (*names, "orphans") if getattr(report, n)}


def test_a_replay_through_the_input_is_no_record_of_its_own() -> None:
    """The record 4 is dead, its copy is record 9, and both are one record with one outcome."""
    story = Story().results(*of(TOPIC, 4, 9), *of(OTHER))
    story.results((TOPIC, 0, 9), replay=attempt(1)).dead(DEAD)
    assert numbers(story.report) == {"published": 19, "replayed": 1}
    assert story.reasons == 0


def test_a_replay_from_the_dead_letter_is_no_second_outcome() -> None:
    """Its result has the record's own coordinates, and may be late."""
    story = Story().results(*of(TOPIC, 4), *of(OTHER))
    story.results(DEAD, replay=attempt(1)).dead(DEAD)
    assert numbers(story.report) == {"published": 20, "replayed": 1}


@pytest.mark.parametrize("copies", [(7, 8, 9), (4, 4, 4)])
def test_each_attempt_may_fail_until_one_succeeds(copies: tuple[int, int, int]) -> None:
    """By copies in the input, or from the dead letters."""
    story = Story().results(*of(TOPIC, 4, *copies), *of(OTHER))
    story.results((TOPIC, 0, copies[2]), replay=attempt(3)).dead(DEAD)
    for number in (1, 2):
        story.dead((TOPIC, 0, copies[number - 1]), replay=attempt(number))
    labelled = 20 - len(set(copies) - {4})
    assert numbers(story.report) == {"published": labelled, "replayed": 1}


@pytest.mark.parametrize("copy", [9, 4])
def test_a_record_whose_replay_fails_again_is_one_dead_letter(copy: int) -> None:
    story = Story().results(*of(TOPIC, 4, copy), *of(OTHER))
    story.dead(DEAD).dead((TOPIC, 0, copy), replay=attempt(1))
    assert numbers(story.report) == {"published": 19 - (copy == 9), "dead_lettered": 1}
    assert story.reasons == 1


@pytest.mark.parametrize("copies", [(8, 9), (4, 4)])
@pytest.mark.parametrize("second", [1, 2])
def test_a_second_result_is_a_duplicate(copies: tuple[int, int], second: int) -> None:
    """A crash may repeat an attempt, and a person may add one."""
    story = Story().results(*of(TOPIC, 4, *copies), *of(OTHER))
    for copy, number in zip(copies, (1, second), strict=True):
        story.results((TOPIC, 0, copy), replay=attempt(number))
    story.dead(DEAD)
    report = story.report
    assert (report.replayed, report.dead_lettered, report.duplicated) == (1, 0, 1)
    assert report.examples["duplicated"][0].startswith("posts/0/4 again as result 0/")


def test_a_repeated_attempt_that_is_dead_again_is_a_duplicate() -> None:
    story = Story().results(*of(TOPIC, 4, 8, 9), *of(OTHER)).dead(DEAD)
    story.dead((TOPIC, 0, 8), (TOPIC, 0, 9), replay=attempt(1))
    assert numbers(story.report) == {"published": 17, "dead_lettered": 1, "duplicated": 1}


def test_a_dead_letter_of_a_later_attempt_than_the_result_is_a_duplicate() -> None:
    """Somebody replayed a record that was labelled already."""
    story = Story().results(*of(TOPIC, 4, 8, 9), *of(OTHER))
    story.results((TOPIC, 0, 8), replay=attempt(1)).dead(DEAD)
    story.dead((TOPIC, 0, 9), replay=attempt(2))
    assert numbers(story.report) == {"published": 18, "replayed": 1, "duplicated": 1}


@pytest.mark.parametrize("late", [False, True])
def test_a_replay_of_a_labelled_record_is_a_duplicate(late: bool) -> None:
    """In either order of the two results."""
    story = Story().results(*of(TOPIC, 4), *of(OTHER))
    if late:
        story.results(DEAD, replay=attempt(1)).results(DEAD)
    else:
        story.results(DEAD).results(DEAD, replay=attempt(1))
    assert story.report.duplicated == 1
    assert story.report.published == 20


def test_a_replay_that_is_still_pending_leaves_a_dead_letter() -> None:
    """Its copy has an offset that is not committed yet."""
    story = Story(limit=9).results(*of(TOPIC, 4, 9), *of(OTHER)).dead(DEAD)
    report = story.report
    assert numbers(report) == {"published": 18, "dead_lettered": 1}
    assert report.pending == 1


def test_a_copy_without_an_outcome_is_missing() -> None:
    story = Story().results(*of(TOPIC, 4, 9), *of(OTHER)).dead(DEAD)
    assert numbers(story.report) == {"published": 18, "dead_lettered": 1, "missing": 1}


def test_a_replay_may_go_through_another_input() -> None:
    story = Story().results(*of(TOPIC, 4), *of(OTHER, 9))
    story.results((OTHER, 0, 9), replay=attempt(1)).dead(DEAD)
    assert numbers(story.report) == {"published": 19, "replayed": 1}


def test_a_replay_of_a_topic_that_is_not_judged_is_a_record_of_its_own() -> None:
    """As in the audit of a worker that reads what another one has labelled."""
    elsewhere = Replay(("elsewhere", 0, 4), 1)
    story = Story().results(*of(TOPIC), *of(OTHER, 8, 9))
    story.results((OTHER, 0, 8), (OTHER, 0, 9), replay=elsewhere)
    assert numbers(story.report) == {"published": 20}


@pytest.mark.parametrize(("kind", "copy"), [("result", 4), ("dead_letter", 4), ("result", 9)])
def test_a_dead_letter_that_was_purged_is_not_missing(kind: Kind, copy: int) -> None:
    """The outcome of its replay shows that it had one."""
    story = Story(died=(), purged=True).results(*of(TOPIC, 4, copy), *of(OTHER))
    story.outcome(kind, (TOPIC, 0, copy), attempt(1))
    published = {"published": 20 - (copy == 9), "replayed": 1}
    dead = {"published": 19, "dead_lettered": 1}
    assert numbers(story.report) == (dead if kind == "dead_letter" else published)


@pytest.mark.parametrize(
    "dead",
    [{"died": ()}, {"died": (("more", 0, 4), ("posts", 0, 70))}, {"died_ms": 7}],
    ids=["no letter", "others", "older topic"],
)
def test_a_replay_of_a_record_without_a_dead_letter_hides_no_loss(dead: dict[str, Any]) -> None:
    """Any producer may name a record in a header: here record 9 names the lost record 4."""
    story = Story(**dead)
    story.results(*of(TOPIC, 4, 9), *of(OTHER)).results((TOPIC, 0, 9), replay=attempt(1))
    assert numbers(story.report) == {"published": 19, "missing": 1}


def test_a_replay_of_a_record_without_a_dead_letter_is_no_duplicate() -> None:
    """The record that it names has an outcome, and it is a record of its own."""
    story = Story(died=()).results(*of(TOPIC, 9), *of(OTHER))
    story.results((TOPIC, 0, 9), replay=attempt(1))
    assert numbers(story.report) == {"published": 20}


def test_a_record_that_names_itself_keeps_the_order_unless_it_was_dead() -> None:
    story = Story(died=()).results(*of(OTHER))
    for offset in (0, 1, 2, 3, 5, 4, 6, 7, 8, 9):
        story.results((TOPIC, 0, offset), replay=Replay((TOPIC, 0, offset), 1))
    assert numbers(story.report) == {"published": 20, "reordered": 1}


def test_a_dead_letter_of_a_replay_of_nothing_is_a_dead_letter() -> None:
    story = Story(died=()).results(*of(TOPIC, 4, 9), *of(OTHER))
    story.dead((TOPIC, 0, 9), replay=attempt(1))
    assert numbers(story.report) == {"published": 18, "dead_lettered": 1, "missing": 1}
    assert story.reasons == 1


def test_a_record_without_a_timestamp_may_have_been_dead() -> None:
    """Its dead letter has the time at which the worker read it."""
    dead = DeadRecords({FIRST: Scope(10, 10)})
    dead.add(DEAD, 7)
    dead.record(FIRST, 4, -1)
    assert DEAD in dead


@pytest.mark.parametrize("last", ["result", "dead_letter"])
def test_a_replay_of_a_record_that_retention_removed_counts_once(last: Kind) -> None:
    """All of its copies are one record."""
    story = Story(start=5).results(*of(TOPIC, *range(5), 8, 9), *of(OTHER))
    if last == "result":
        story.results((TOPIC, 0, 9), replay=attempt(2))
    story.dead((TOPIC, 0, 8), replay=attempt(1))
    if last == "dead_letter":
        story.dead((TOPIC, 0, 9), replay=attempt(2))
    counted = {"published": 14, "replayed": 1} if last == "result" else None
    assert numbers(story.report) == (counted or {"published": 13, "dead_lettered": 1})
