"""Dead letters: what their headers say, filters, counts, what is settled, and what is replayed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.dead_letter import DeadLetterReason
from tests.support.records import CARD, raw
from worker.core.coordinates import GROUP_HEADER, SOURCE_HEADER
from worker.core.dead_letters import Letter, LetterFilters, read_letter
from worker.core.encoder import DEAD_LETTER_HEADER, Encoder
from worker.core.letter_groups import GROUPINGS, LetterCounts
from worker.core.purge import PurgeReport
from worker.core.records import DeadLettered, RecordRef
from worker.core.replay import Replay
from worker.core.replay_rules import REFUSALS, ReplayRules, ReplaySelection
from worker.core.route_headers import COPY_HEADER
from worker.core.settled_letters import SettledLetters
from worker.core.topic_limits import TopicLimits
from worker.settings import OutputSettings

NOW_MS = 1_800_000_000_000
HOUR_MS = 3_600_000
FIRST = ("in", 0, 4)  # the record that is dead first

# -- reading -------------------------------------------------------------------------------------


def letter(
    offset: int = 0,
    *,
    source: int = 4,
    partition: int = 0,
    attempt: int = 0,
    first: tuple[str, int, int] = FIRST,
    value: bytes | None = b"{}",
    failed_ms: int = NOW_MS,
    most_bytes: int | None = None,
    dead: dict[str, Any] | None = None,
    group: str | None = None,
) -> Letter:
    """Return the dead letter that the encoder makes of a record of topic `in`."""
    replay = [Replay(first, attempt).header] if attempt else []
    record = raw(source, value, key=b"k", headers=(("own", b"1"), *replay))
    limits = {"dead": TopicLimits(most_bytes)}
    settings = OutputSettings(dead_letter_topic="dead")
    encoder = Encoder(settings, version="1.2.3", limits=limits, group=group)
    outcome = DeadLettered(
        record, **({"reason": DeadLetterReason.NOT_JSON, "message": "x"} | (dead or {}))
    )
    made = encoder.encode(outcome, now_ms=failed_ms, now=0.0)
    return read_letter(
        partition, offset, made.timestamp_ms, made.key, made.value or b"", made.headers
    )


MODEL = {
    "reason": DeadLetterReason.MODEL_FAILED,
    "message": "ValueError: no",
    "stack_hash": "0123456789abcdef",
    "model": CARD,
}


def foreign(offset: int = 0, *, partition: int = 0, **headers: bytes) -> Letter:
    names = {"source": SOURCE_HEADER, "letter": DEAD_LETTER_HEADER}
    return read_letter(
        partition, offset, 0, None, b"x", [(names[name], value) for name, value in headers.items()]
    )


def test_a_dead_letter_tells_its_record_and_the_fault() -> None:
    read = letter(7, dead=MODEL)
    assert read.context is not None
    assert (read.source, read.first, read.attempt) == (("in", 0, 4), ("in", 0, 4), 0)
    assert (read.context.exception, read.context.reason) == ("ValueError", "model_failed")
    assert read.context.failed_ms == NOW_MS
    assert read.context.model is not None
    assert read.context.model.weights_sha256 == CARD.weights_sha256


def test_a_replay_tells_the_first_record_too() -> None:
    read = letter(7, source=9, attempt=2)
    assert (read.source, read.first, read.attempt) == (("in", 0, 9), FIRST, 2)


def test_attempts_are_counted_although_headers_do_not_fit() -> None:
    """A dead letter that is too large for its topic loses the others."""
    value = b"x" * 10_000
    read = letter(source=9, attempt=2, value=value, most_bytes=3_500)
    assert read.context is not None
    assert read.attempt == 2
    assert not read.context.complete
    assert [name for name, _ in read.headers if name == "own"] == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"letter": b"{}"},
        {"source": b"in/0/4"},
        {"source": b"in/0/4", "letter": b"\xff"},
        {"source": b"in/0/4", "letter": b"{}"},
    ],
)
def test_a_record_of_another_program_has_no_context(headers: dict[str, bytes]) -> None:
    read = foreign(**headers)
    assert (read.context, read.source, read.first) == (None, None, None)


def test_headers_that_contradict_each_other_are_no_context() -> None:
    """The document is of another record than the coordinates."""
    document = dict(letter().headers)[DEAD_LETTER_HEADER] or b""
    assert foreign(source=b"in/0/4", letter=document).context is not None
    assert foreign(source=b"in/0/5", letter=document).context is None


def test_a_document_of_a_later_version_can_be_read() -> None:
    """With members and reasons that are not known here."""
    document = json.loads(dict(letter().headers)[DEAD_LETTER_HEADER] or b"")
    later = json.dumps(document | {"reason": "new_reason", "more": 1}).encode()
    read = foreign(source=b"in/0/4", letter=later)
    assert read.context is not None
    assert read.context.reason == "new_reason"


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_any_headers_are_read(source: bytes, document: bytes) -> None:
    assert foreign(source=source, letter=document).context is None


# -- filters -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("filters", "accepted"),
    [
        ({}, True),
        ({"reasons": ["model_failed"]}, True),
        ({"reasons": ["not_json"]}, False),
        ({"since_ms": NOW_MS}, True),
        ({"since_ms": NOW_MS + 1}, False),
        ({"until_ms": NOW_MS}, False),
        ({"until_ms": NOW_MS + 1}, True),
        ({"partitions": [0, 1]}, True),
        ({"partitions": [1]}, False),
        ({"versions": ["1.2.3"]}, True),
        ({"versions": ["1.2"]}, False),
        ({"models": ["tiny"]}, True),
        ({"models": ["abab"]}, True),
        ({"models": ["other"]}, False),
        ({"exceptions": ["ValueError"]}, True),
        ({"exceptions": ["Value"]}, False),
        ({"stack_hashes": ["0123"]}, True),
        ({"stack_hashes": ["123"]}, False),
    ],
)
def test_a_filter_chooses(filters: dict[str, Any], accepted: bool) -> None:
    assert LetterFilters(**filters).accept(letter(dead=MODEL)) is accepted


def test_a_fault_without_an_exception_or_a_model_has_neither() -> None:
    plain = letter()
    assert not LetterFilters(models=["tiny"]).accept(plain)
    assert not LetterFilters(stack_hashes=[""]).accept(plain)
    assert not LetterFilters(exceptions=["x"]).accept(plain)


@pytest.mark.parametrize(
    ("filters", "accepted"),
    [
        ({}, True),
        ({"partitions": [0]}, True),
        ({"partitions": [1]}, False),
        ({"since_ms": 0}, False),
    ],
)
def test_only_a_partition_chooses_what_has_no_document(
    filters: dict[str, Any], accepted: bool
) -> None:
    assert LetterFilters(**filters).accept(foreign()) is accepted


# -- counts --------------------------------------------------------------------------------------


def counts_of(by: str, *letters: Letter) -> LetterCounts:
    counts = LetterCounts(by)
    for one in letters:
        counts.add(one)
    return counts


SOME = (
    letter(0),
    letter(1, dead=MODEL, partition=10, failed_ms=NOW_MS - HOUR_MS),
    letter(2, dead=MODEL, partition=9, attempt=1),
    foreign(3, partition=10),
)


@pytest.mark.parametrize(
    ("by", "groups"),
    [
        ("reason", {"model_failed": 2, "not_json": 1, "unreadable": 1}),
        ("hour", {"2027-01-15T07:00Z": 1, "2027-01-15T08:00Z": 2, "unreadable": 1}),
        ("partition", {"0": 1, "9": 1, "10": 2}),
        ("version", {"1.2.3": 3, "unreadable": 1}),
        ("exception", {"ValueError": 2, "no exception": 1, "unreadable": 1}),
        ("model", {"tiny": 2, "no model": 1, "unreadable": 1}),
    ],
)
def test_dead_letters_are_counted_by_what_is_asked(by: str, groups: dict[str, int]) -> None:
    """The shares sum to 1; hours and partitions keep their order."""
    found = counts_of(by, *SOME).groups
    assert {group.name: group.number for group in found} == groups
    assert sum(group.share for group in found) == pytest.approx(1)
    if by in ("hour", "partition"):
        assert [group.name for group in found] == [*groups]


def test_every_grouping_is_tested_above() -> None:
    assert set(GROUPINGS) == {"reason", "hour", "partition", "version", "exception", "model"}


def test_a_group_has_its_faults() -> None:
    group = counts_of("reason", *SOME).groups[0]
    assert group.document == {
        "name": "model_failed",
        "number": 2,
        "share": 0.5,
        "faults": [{"exception": "ValueError", "stack_hash": "0123456789abcdef", "number": 2}],
    }


def test_the_counts_tell_times_states_and_attempts() -> None:
    counts = counts_of("reason", *SOME, letter(4, value=None))
    assert (counts.first_ms, counts.last_ms) == (NOW_MS - HOUR_MS, NOW_MS)
    assert counts.states == {"whole": 3, "null": 1, "incomplete": 0}
    assert counts.attempts == {0: 4, 1: 1}


# -- what is settled -----------------------------------------------------------------------------


def settled_by(*results: tuple[tuple[str, int, int], Replay | None]) -> SettledLetters:
    settled = SettledLetters()
    for one in (letter(0), letter(1, source=9, attempt=1), letter(2, source=5), foreign(3)):
        settled.add(one)
    for source, replay in results:
        settled.add_result(source, replay)
    return settled


def test_a_dead_letter_is_settled_by_a_later_one_of_its_record() -> None:
    settled = settled_by()
    states = [
        settled.state(one)
        for one in (letter(0), letter(1, source=9, attempt=1), letter(2, source=5), foreign(3))
    ]
    assert states == ["superseded", "open", "open", "unreadable"]


@pytest.mark.parametrize(
    "result", [(("in", 0, 10), Replay(FIRST, 2)), (FIRST, Replay(FIRST, 2)), (FIRST, None)]
)
def test_a_result_settles_all_dead_letters_of_its_record(
    result: tuple[tuple[str, int, int], Replay | None],
) -> None:
    """A copy may have it, the dead letter itself, or the record all along."""
    settled = settled_by(result, (("in", 0, 77), None))
    assert settled.state(letter(0)) == "labelled"
    assert settled.state(letter(1, source=9, attempt=1)) == "labelled"
    assert settled.state(letter(2, source=5)) == "open"


def of_copy(offset: int = 0) -> Letter:
    """Return the dead letter of a copy that its topic refused."""
    made = letter()
    headers = [*made.headers, (COPY_HEADER, b"alerts")]
    return read_letter(0, offset, made.timestamp_ms, made.key, made.value, headers)


def test_the_dead_letter_of_a_copy_is_of_no_concern_to_its_record() -> None:
    """The record has an outcome of its own: the copy's is never replayed, and may be purged."""
    settled = SettledLetters()
    for one in (letter(0), of_copy(1)):
        settled.add(one)
    assert [settled.state(one) for one in (letter(0), of_copy(1))] == ["open", "copy"]
    assert rules(settled=settled).refusal(of_copy(1), NOW_MS) == "copy"
    assert rules().refusal(of_copy(1), NOW_MS) == "copy"
    report = PurgeReport(settled, LetterFilters(), {0: 0}, {0: 2})
    report.add(of_copy(1), soon=True)
    assert (report.partitions[0].below, report.partitions[0].soon) == (2, 0)


CUT = {"value": b"x" * 9_000, "most_bytes": 5_000}  # about 1,600 bytes are kept
SHORTER = {"value": b"x" * 9_000, "most_bytes": 4_500}
BARE = {"most_bytes": 3_340}  # no room for key and headers


@pytest.mark.parametrize(
    ("first", "second", "open_one"),
    [
        ({}, {}, 1),
        ({"value": None}, {"value": None}, 1),
        (CUT, {"value": b"x" * 9_000}, 1),
        ({"value": b"x" * 9_000}, CUT, 0),
        (CUT, SHORTER, 0),
        (SHORTER, CUT, 1),
        ({}, BARE, 0),
        (BARE, {}, 1),
    ],
)
def test_only_one_that_keeps_as_much_supersedes_a_dead_letter(
    first: dict[str, Any], second: dict[str, Any], open_one: int
) -> None:
    """Else a purge would lose bytes of the record. The one that keeps most is replayed."""
    letters = [letter(0, **first), letter(1, source=9, attempt=1, **second)]
    settled = SettledLetters()
    for one in letters:
        settled.add(one)
    assert settled.state(letters[open_one]) == "open"
    assert settled.state(letters[not open_one]) == "superseded"
    assert rules(settled=settled).replay_of(letters[open_one]) == Replay(FIRST, 2)
    tired = rules(settled=settled, max_attempts=1, include_cut=True, to="out")
    assert tired.refusal(letters[open_one], NOW_MS) == "attempts"


def test_a_letter_that_has_arrived_since_is_the_first_attempt() -> None:
    assert settled_by().attempts(letter(9, source=70)) == 0
    assert settled_by().attempts(foreign()) == 0


@pytest.mark.parametrize("own", [b"", b"fill"])
def test_only_a_result_of_its_own_group_settles_a_dead_letter(own: bytes) -> None:
    """The worker and each backfill have outcomes of their own."""
    settled = SettledLetters()
    letters = {b"": letter(0), b"fill": letter(1, group="fill"), b"more": letter(2, group="more")}
    for one in letters.values():
        settled.add(one)
    settled.add_result(FIRST, None, own)
    states = {group: settled.state(one) for group, one in letters.items()}
    assert states == dict.fromkeys(letters, "open") | {own: "labelled"}


def test_one_that_has_arrived_since_is_open() -> None:
    assert settled_by().state(letter(9, source=70)) == "open"


def test_a_partition_may_be_purged_up_to_its_first_open_dead_letter() -> None:
    settled = settled_by((FIRST, Replay(FIRST, 2)))
    filters = LetterFilters(reasons=["not_json"])
    report = PurgeReport(settled, filters, {0: 0, 1: 5, 2: 3}, {0: 4, 1: 5, 2: 0})
    for one in (letter(0), letter(1, source=9, attempt=1), letter(2, source=5), foreign(3)):
        report.add(one, soon=True)
    first = report.partitions[0]
    assert (first.start, first.below, first.soon) == (0, 2, 1)
    assert first.states == {"labelled": 2, "open": 1}
    assert [(one.start, one.below) for one in report.partitions.values()] == [
        (0, 2),
        (5, 5),
        (0, 0),
    ]


# -- what is replayed ----------------------------------------------------------------------------


def rules(**changes: Any) -> ReplayRules:
    common: dict[str, Any] = {
        "filters": LetterFilters(),
        "is_input": lambda topic: topic == "in",
        "limits": {"in": TopicLimits()},
    }
    return ReplayRules(**(common | changes))


@pytest.mark.parametrize(
    ("one", "changes", "reason"),
    [
        (letter(), {}, None),
        (foreign(), {}, "unreadable"),
        (letter(), {"is_input": lambda _: False}, "other_input"),
        (letter(), {"is_input": lambda _: False, "to": "in"}, None),
        (letter(), {"limits": {}}, "no_topic"),
        (letter(value=None), {}, "null_value"),
        (letter(value=None), {"to": "in"}, "null_value"),
        (letter(value=None), {"to": "out", "limits": {"out": TopicLimits()}}, None),
        (letter(value=b"x" * 9_000, most_bytes=5_000), {}, "cut"),
        (letter(value=b"x" * 9_000, most_bytes=5_000), {"include_cut": True}, None),
        (letter(attempt=3), {}, "attempts"),
        (letter(attempt=3), {"max_attempts": 4}, None),
        (letter(attempt=2), {}, None),
        (letter(0), {"settled": settled_by()}, "superseded"),
        (letter(2, source=5), {"settled": settled_by()}, None),
        (letter(0), {"settled": settled_by((FIRST, None))}, "labelled"),
        (letter(), {"limits": {"in": TopicLimits(retention_ms=1)}}, "expired"),
        (letter(), {"limits": {"in": TopicLimits(before_ms=1)}}, "timestamp"),
        (letter(), {"limits": {"in": TopicLimits(300)}}, "too_large"),
        (letter(), {"limits": None}, None),
        (letter(group="fill"), {}, "backfill"),
        (letter(group="fill"), {"to": "in"}, "backfill"),
        (letter(group="fill"), {"to": "out", "limits": {"out": TopicLimits()}}, None),
        (letter(group="fill"), {"limits": None}, None),
    ],
)
def test_a_dead_letter_is_replayed_or_refused_with_a_reason(
    one: Letter, changes: dict[str, Any], reason: str | None
) -> None:
    assert rules(**changes).refusal(one, NOW_MS) == reason
    assert reason is None or reason in REFUSALS


@pytest.mark.parametrize("include", [False, True])
def test_one_that_was_not_read_whole_is_refused(include: bool) -> None:
    """A replay with less memory than the worker had would label the beginning of the value."""
    cut = dataclasses.replace(letter(value=b"x" * 90), value=b"x" * 10)
    assert rules(include_cut=include).refusal(cut, NOW_MS) == "unread"
    assert "unread" in REFUSALS


@pytest.mark.parametrize(("include", "reason"), [(False, "incomplete"), (True, None)])
def test_one_without_its_headers_is_refused(include: bool, reason: str | None) -> None:
    one = letter()
    assert one.context is not None
    stripped = dataclasses.replace(one, context=one.context.model_copy(update={"complete": False}))
    assert rules(include_cut=include).refusal(stripped, NOW_MS) == reason


def test_a_copy_is_the_record_again_with_one_more_header() -> None:
    """Its origin is where the copy goes."""
    ref = RecordRef("dead", 2, 7, 3)
    record = rules().restore(letter(7, source=9, attempt=1), ref, 1.5)
    assert (record.ref, record.source) == (ref, RecordRef("in", 0, 9, 3))
    assert (record.key, record.value, record.timestamp_ms) == (b"k", b"{}", raw().timestamp_ms)
    assert record.headers == (("own", b"1"), Replay(FIRST, 2).header)


def test_a_record_that_is_labelled_at_once_has_the_coordinates_of_the_first() -> None:
    record = rules(limits=None).restore(
        letter(7, source=9, attempt=1), RecordRef("dead", 2, 7, 3), 0
    )
    assert record.source == RecordRef("in", 0, 4, 3)


@pytest.mark.parametrize(("limits", "kept"), [(None, [b"fill"]), ({}, [])])
def test_only_a_record_that_is_labelled_at_once_stays_in_its_group(
    limits: dict[str, TopicLimits] | None, kept: list[bytes]
) -> None:
    record = rules(limits=limits).restore(letter(7, group="fill"), RecordRef("dead", 2, 7, 3), 0)
    assert [value for name, value in record.headers if name == GROUP_HEADER] == kept


def test_a_null_value_is_null_again() -> None:
    record = rules(to="out").restore(letter(value=None), RecordRef("dead", 0, 0, 0), 0)
    assert record.value is None


def test_a_first_record_elsewhere_is_not_known_here() -> None:
    """The copy that this worker read is the record that its audit judges; attempts go on."""
    one = letter(source=9, attempt=1, first=("elsewhere", 0, 4))
    assert rules().replay_of(one) == Replay(("in", 0, 9), 2)


@pytest.mark.parametrize("ask", ["replay_of", "restore"])
def test_there_is_no_replay_without_a_document(ask: str) -> None:
    more = () if ask == "replay_of" else (RecordRef("dead", 0, 0, 0), 0.0)
    with pytest.raises(ValueError, match="without a document"):
        getattr(rules(), ask)(foreign(), *more)


def take(selection: ReplaySelection, offsets: Collection[int]) -> list[int]:
    """Return the offsets that are taken, of those that are not beyond."""
    return [
        offset
        for offset in offsets
        if not selection.is_beyond(0, offset) and selection.takes(letter(offset), NOW_MS)
    ]


def test_a_selection_counts_what_it_sees() -> None:
    selection = ReplaySelection(rules(filters=LetterFilters(reasons=["not_json", "x"])))
    for one in (letter(0), letter(1, dead=MODEL), letter(2, attempt=3), letter(3)):
        selection.takes(one, NOW_MS)
    counts = selection.counts
    assert (counts.read, counts.filtered, counts.taken) == (4, 1, 2)
    assert counts.refused == {"attempts": 1}
    assert (counts.reasons, counts.targets) == ({"not_json": 2}, {"in": 2})


def test_a_limit_ends_a_selection() -> None:
    """A rebalance may poll a dead letter again; it is taken again, and counted once."""
    selection = ReplaySelection(rules(), limit=3)
    assert take(selection, range(6)) == [0, 1, 2]
    assert selection.full
    assert take(selection, range(6)) == [0, 1, 2]
    assert (selection.counts.read, selection.counts.taken) == (3, 3)
