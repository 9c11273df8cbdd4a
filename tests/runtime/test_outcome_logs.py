"""The log lines about outcomes: throughput each minute, dead letters by reason."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from schemas.dead_letter import DeadLetterReason as R
from tests.support.clocks import HandClock
from worker.core.records import Encoded, RecordRef
from worker.runtime.outcome_logs import DeadLetterLog, ThroughputLog

Lines = list[MutableMapping[str, Any]]


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def lines() -> Iterator[Lines]:
    with capture_logs() as captured:
        yield captured


def outcome(reason: R | None = None) -> Encoded:
    ref = RecordRef("in", 0, 0, 1)
    return Encoded(ref, "out", None, b"", [], timestamp_ms=0, reason=reason)


# -- throughput --------------------------------------------------------------------------------


def flow(log: ThroughputLog, clock: HandClock, seconds: int, *outcomes: Encoded) -> None:
    """These outcomes each second, and a report after each."""
    for _ in range(seconds):
        if outcomes:
            log.note(outcomes)
        clock.sleep(1)
        log.log_if_due(lag=120)


def test_throughput_is_logged_once_a_minute_while_records_flow(
    clock: HandClock, lines: Lines
) -> None:
    log = ThroughputLog(clock)
    flow(log, clock, 180, *[outcome()] * 300, outcome(R.NOT_JSON))
    assert [line["event"] for line in lines] == [
        "labelled 18,000 records, 301/s, lag 120, 60 dead letters"
    ] * 3
    line = lines[0]
    assert (line["labelled"], line["dead_letters"], line["lag"]) == (18_000, 60, 120)
    assert line["records_per_second"] == 301
    assert line["log_level"] == "info"


def test_an_idle_worker_logs_no_throughput(clock: HandClock, lines: Lines) -> None:
    log = ThroughputLog(clock)
    flow(log, clock, 300)
    assert lines == []
    flow(log, clock, 1, outcome())
    flow(log, clock, 300)
    assert [line["event"] for line in lines] == [
        "labelled 1 record, 0.017/s, lag 120, 0 dead letters"
    ]


def test_idle_time_does_not_dilute_the_rate(clock: HandClock, lines: Lines) -> None:
    log = ThroughputLog(clock)
    flow(log, clock, 45)
    flow(log, clock, 60, outcome(), outcome())
    assert [line["records_per_second"] for line in lines] == [2]


def test_an_unknown_lag_is_logged_as_such(clock: HandClock, lines: Lines) -> None:
    log = ThroughputLog(clock)
    log.note([outcome(R.NOT_JSON)])
    clock.sleep(60)
    log.log_if_due(lag=None)
    assert lines[0]["event"] == "labelled 0 records, 0.017/s, lag unknown, 1 dead letter"
    assert lines[0]["lag"] is None


def test_totals_cover_the_whole_run(clock: HandClock, lines: Lines) -> None:
    log = ThroughputLog(clock)
    flow(log, clock, 90, outcome(), outcome(), outcome(R.TOO_LARGE))
    assert len(lines) == 1
    assert log.totals() == {"labelled": 180, "dead_letters": 90, "uptime_seconds": 90}


# -- dead letters ------------------------------------------------------------------------------


def test_dead_letters_are_logged_by_reason_once_a_minute(clock: HandClock, lines: Lines) -> None:
    letters = DeadLetterLog(clock)
    letters.log_if_due()
    letters.note([outcome()])
    letters.log_if_due(last=True)
    assert lines == [], "results are not logged"
    letters.note([outcome(R.NOT_JSON), outcome(), outcome(R.NOT_JSON)])
    letters.log_if_due()
    letters.note([outcome(R.NOT_JSON)])
    clock.sleep(59)
    letters.log_if_due()
    letters.note([outcome(R.PATH_MISSING)] * 3)
    clock.sleep(1)
    letters.log_if_due()
    letters.note([outcome(R.TOO_LARGE)])
    letters.log_if_due(last=True)
    letters.log_if_due(last=True)
    assert [line["reasons"] for line in lines] == [
        {"not_json": 2},
        {"path_missing": 3, "not_json": 1},
        {"too_large": 1},
    ]
    assert {line["log_level"] for line in lines} == {"warning"}
