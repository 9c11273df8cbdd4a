"""The log's line about dead letters: at once, then once a minute, with all that came between."""

from __future__ import annotations

from structlog.testing import capture_logs

from schemas.dead_letter import DeadLetterReason as R
from tests.support.clocks import HandClock
from worker.core.records import Encoded, RecordRef
from worker.runtime.dead_letter_log import DeadLetterLog


def outcome(reason: R | None) -> Encoded:
    ref = RecordRef("in", 0, 0, 1)
    return Encoded(ref, "out", None, b"", [], timestamp_ms=0, reason=reason)


def test_one_line_a_minute_has_the_counts_by_reason() -> None:
    clock = HandClock()
    letters = DeadLetterLog(clock)
    with capture_logs() as said:
        letters.say()
        letters.note([outcome(None)])
        letters.say(last=True)
        assert said == []  # results are no news
        letters.note([outcome(R.NOT_JSON), outcome(None), outcome(R.NOT_JSON)])
        letters.say()
        letters.note([outcome(R.NOT_JSON)])
        clock.sleep(59)
        letters.say()
        letters.note([outcome(R.PATH_MISSING)] * 3)
        clock.sleep(1)
        letters.say()
        letters.note([outcome(R.TOO_LARGE)])
        letters.say(last=True)
        letters.say(last=True)
    assert [line["reasons"] for line in said] == [
        {"not_json": 2},
        {"path_missing": 3, "not_json": 1},
        {"too_large": 1},
    ]
    assert {line["log_level"] for line in said} == {"warning"}
