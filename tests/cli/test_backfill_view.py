"""The progress of a backfill, as a person and as a log collector see it."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator

import pytest

from tests.support.workers import wait_until
from worker.cli import backfill_view
from worker.cli.backfill_view import Watch, finished_text
from worker.clock import SystemClock
from worker.core.bounds import Bound, RangeProgress
from worker.core.records import Partition
from worker.core.when import Span, When
from worker.errors import BrokerAway
from worker.settings import load

STARTING, HALF, DONE = (
    RangeProgress(0, 0, 0, 2),
    RangeProgress(10_000, 20_000, 0, 0),
    RangeProgress(20_000, 20_000, 0, 0),
)


class Group:
    """Answers with one progress after another, and with the last one from then on."""

    def __init__(self, *answers: RangeProgress | Exception) -> None:
        self._answers = list(answers)
        self.last = threading.Event()

    def read(self) -> RangeProgress:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if len(self._answers) == 1:
            self.last.set()
        if isinstance(answer, Exception):
            raise answer
        return answer


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Read often, and put the log back."""
    monkeypatch.setattr(backfill_view, "_EVERY_ON_TERMINAL", 0.01)
    monkeypatch.setattr(backfill_view, "_EVERY_IN_LOG", 0.01)
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def shown(capsys: pytest.CaptureFixture[str], group: Group) -> str:
    """Return what is written to standard error while the group works."""
    settings = load({"log.format": "json"}, environ={}).settings
    watch = Watch(group.read, settings, SystemClock(), quiet=True)
    with watch.shown():
        wait_until(group.last.is_set, what="the group has finished")
    return capsys.readouterr().err


def terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", str(columns))


def test_a_terminal_shows_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal(monkeypatch, 100)
    told = shown(capsys, Group(STARTING, HALF, BrokerAway("a timeout"), HALF, DONE))
    assert "starting: loading the model" in told
    assert "50% 10,000 of 20,000 offsets" in told
    assert "━" in told
    assert "100% 20,000 of 20,000 offsets" in told.rpartition("\r")[2]


def test_a_narrow_terminal_shows_numbers_only(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal(monkeypatch, 40)
    told = shown(capsys, Group(HALF, DONE))
    assert "━" not in told
    assert "100% 20,000 of 20,000 offsets" in told


def test_elsewhere_the_log_has_a_line_a_while(capsys: pytest.CaptureFixture[str]) -> None:
    """The lines hold numbers, and none is written before the range is known."""
    lines = [json.loads(line) for line in shown(capsys, Group(STARTING, HALF, DONE)).splitlines()]
    assert [line["message"] for line in lines] == ["backfill"] * len(lines)
    assert (lines[0]["done"], lines[0]["total"], lines[0]["percent"]) == (10_000, 20_000, 50.0)
    assert "seconds_left" not in lines[0]
    assert (lines[-1]["percent"], lines[-1]["seconds_left"]) == (100.0, 0)


def test_an_empty_range_is_done(capsys: pytest.CaptureFixture[str]) -> None:
    (line, *_) = shown(capsys, Group(RangeProgress(0, 0, 0, 0))).splitlines()
    assert json.loads(line)["percent"] == 100.0


def test_a_finished_range_is_named_with_its_time_and_its_first_partitions() -> None:
    span = Span(When("time", "7d"), When("latest", "now"))
    at_ms = 1_800_000_000_000
    notes = {
        Partition("in", n): Bound(10, 1_010, span=span.name, at_ms=at_ms + n).note()
        for n in range(7)
    }
    notes[Partition("in", 7)] = Bound(5, 5, span=span.name).note()  # nothing of it
    told = finished_text("again", span, notes)
    assert told.startswith(
        "group 'again' has labelled 7d..now already, as of 2027-01-15 08:00:00 UTC: 7,000 offsets "
        "(in[0] 10 to 1,010, in[1] 10 to 1,010, "
    )
    assert "in[4] 10 to 1,010, 2 more). These places mean another range by now" in told


def test_a_finished_range_may_be_empty_and_without_a_time() -> None:
    span = Span(When("latest", "latest"), When("latest", "now"))
    told = finished_text("again", span, {Partition("in", 0): Bound(5, 5, span=span.name).note()})
    assert told.startswith("group 'again' has labelled latest..now already: 0 offsets. These")
