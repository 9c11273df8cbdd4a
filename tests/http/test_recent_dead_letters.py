"""The last dead letters are kept with their error, and with their text only if that is allowed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from schemas import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.records import raw
from worker.core.records import DeadLettered, Encoded
from worker.http.notes import DEAD_LETTERS
from worker.http.recent_dead_letters import RecentDeadLetters


def dead(offset: int, value: bytes | None = b"private \x1b[2J") -> Encoded:
    record = replace(raw(offset), value=value)
    outcome = DeadLettered(record, DeadLetterReason.NOT_JSON, "no \x1b JSON", stack_hash="ab12")
    return Encoded(record.ref, "dead", None, b"", [], 0, DeadLetterReason.NOT_JSON, outcome=outcome)


def labelled(offset: int) -> Encoded:
    return Encoded(raw(offset).ref, "out", None, b"", [], 0, label="POSITIVE")


def test_a_dead_letter_has_its_place_and_its_error_but_no_text() -> None:
    clock = HandClock()
    recent = RecentDeadLetters(texts=False, clock=clock)
    recent.note([labelled(1), dead(2), labelled(3)])
    assert recent.latest() == (
        {
            "at": clock.wall_ms(),
            "topic": "in",
            "partition": 0,
            "offset": 2,
            "reason": DeadLetterReason.NOT_JSON,
            "message": "no [U+001B] JSON",
            "stack_hash": "ab12",
            "bytes": 12,
        },
    )
    assert "private" not in str(vars(recent))


@pytest.mark.parametrize(
    ("value", "text"),
    [(b"private \x1b[2J", "private [U+001B][2J"), (b"\xff", "\ufffd"), (None, "")],
)
def test_the_text_is_kept_if_it_is_allowed(value: bytes | None, text: str) -> None:
    recent = RecentDeadLetters(texts=True, clock=HandClock())
    recent.note([dead(2, value)])
    assert recent.latest()[0]["text"] == text


def test_the_newest_twenty_are_kept_newest_first() -> None:
    recent = RecentDeadLetters(texts=True, clock=HandClock())
    recent.note([dead(n, b"x" * 100_000) for n in range(15)])
    recent.note([labelled(99)])
    recent.note([dead(n) for n in range(15, 30)])
    assert [letter["offset"] for letter in recent.latest()] == list(
        range(29, 29 - DEAD_LETTERS, -1)
    )
    assert max(len(letter["text"]) for letter in recent.latest()) < 300
