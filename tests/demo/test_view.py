"""The demo's display: hostile texts can't control a terminal, and the figures are right."""

from __future__ import annotations

import io
import re
from datetime import UTC, datetime

import pytest
from rich.console import Console

from schemas.classification import Classification, LabelScore, ModelRef, SourceRef
from schemas.dead_letter import DeadLetter, DeadLetterReason, ValueState
from tests.support.clocks import HandClock
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.records import RawRecord, RecordRef
from worker.demo.sample import SampleRecord
from worker.demo.summary import Summary, next_steps, program
from worker.demo.tally import Tally
from worker.demo.view import LiveView, PlainView, frame, sanitised

HOSTILE = (
    "\x1b[2J\x1b[31mred\x1b[0m",
    "\x1b]0;owned\x07title",
    "\x9b31mC1 control",
    "[bold red]markup[/bold red] [link=http://example.org]click[/link] [/]",
    "\u202eright to left",
    "zero\u200bwidth\u2066isolate",
    "carriage\rreturn and\nlines\x0b\x0c",
    "lone \ud83d surrogate",
    "NUL \x00 and BEL \x07 and DEL \x7f",
    "\U0001f600" * 100_000,
)
FORBIDDEN = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
MOMENT = datetime(2024, 1, 1, tzinfo=UTC)


def _source(offset: int, timestamp_ms: int) -> SourceRef:
    return SourceRef(topic="texts.in", partition=0, offset=offset, timestamp_ms=timestamp_ms)


def _raw(value: bytes, headers: list[tuple[str, bytes]]) -> RawRecord:
    return RawRecord(RecordRef("texts.labelled", 0, 0, 0), 0, b"key", value, headers, 0.0)


def _result(offset: int, label: str, timestamp_ms: int) -> RawRecord:
    result = Classification(
        id="one",
        label=label,
        score=0.9,
        labels=[LabelScore(label=label, score=0.9)],
        token_count=3,
        truncated=False,
        source=_source(offset, timestamp_ms),
        model=ModelRef(name="test", revision="local", weights_sha256="0" * 64),
        processed_at=MOMENT,
        processing_ms=1.0,
    )
    return _raw(result.model_dump_json().encode(), [])


def _dead(offset: int, reason: DeadLetterReason, timestamp_ms: int) -> RawRecord:
    context = DeadLetter(
        reason=reason,
        message="why",
        source=_source(offset, timestamp_ms),
        value_state=ValueState.WHOLE,
        value_bytes=1,
        attempt=1,
        worker_version="0",
        failed_at=MOMENT,
    )
    return _raw(b"x", [(DEAD_LETTER_HEADER, context.model_dump_json().encode())])


def _sent(records: list[SampleRecord], clock: HandClock) -> Tally:
    tally = Tally(records, clock)
    for index in range(len(records)):
        tally.note_sent()
        tally.note_acknowledged(index, 0, index)
    return tally


def _drawn(tally: Tally) -> str:
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(frame(tally, "demo"))
    return console.export_text()


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_sanitised(text: str) -> None:
    """No control, override or zero-width character reaches the terminal."""
    clock = HandClock()
    tally = _sent([SampleRecord(b"key", b"value", text)], clock)
    tally.note_outcome(_result(0, "POSITIVE", clock.wall_ms()))
    drawn = _drawn(tally)
    assert FORBIDDEN.search(drawn) is None
    assert max(map(len, drawn.splitlines())) <= 100
    drawn.encode()


def test_markup_is_shown_literally() -> None:
    """Square brackets in a text are not parsed."""
    clock = HandClock()
    tally = _sent([SampleRecord(b"key", b"value", "[bold]loud[/bold]")], clock)
    tally.note_outcome(_result(0, "[red]odd[/red]", clock.wall_ms()))
    assert "[bold]loud[/bold]" in _drawn(tally)
    assert "[red]odd[/red]" in _drawn(tally)


def test_ordinary_text_is_kept() -> None:
    """Accents, scripts and emoji stay."""
    kept = "Grüße, 你好, שלום, 🐈 ❤"
    assert sanitised(f"  {kept}\n") == kept


def test_an_empty_run_can_be_drawn() -> None:
    """The first frame is drawn before the first result."""
    assert "0 of 0" in _drawn(Tally([], HandClock()))


def test_tally_matches_outcomes_with_records() -> None:
    """Records and outcomes are matched by partition and offset."""
    clock = HandClock()
    tally = _sent(
        [
            SampleRecord(b"a", b"1", "good", valence=2.0),
            SampleRecord(b"a", b"2", "bad", valence=-2.0),
            SampleRecord(b"a", b"3", "so so", valence=0.2),
            SampleRecord(b"a", None, "(null)", expected=DeadLetterReason.NULL_VALUE),
        ],
        clock,
    )
    sent_ms = clock.wall_ms()
    clock.sleep(2.0)
    for record in (
        _result(0, "POSITIVE", sent_ms),
        _result(1, "POSITIVE", sent_ms),
        _result(1, "POSITIVE", sent_ms),  # a duplicate changes nothing
        _result(2, "NEGATIVE", sent_ms),
    ):
        tally.note_outcome(record)
    assert (tally.waiting, tally.finished) == (1, False)
    tally.note_outcome(_dead(3, DeadLetterReason.NULL_VALUE, sent_ms))
    assert (tally.waiting, tally.finished, tally.answered) == (0, True, 4)
    assert tally.labels == {"POSITIVE": 2, "NEGATIVE": 1}
    assert tally.agreement() == (1, 2)
    assert tally.latency_ms(0.5) == tally.latency_ms(0.99) == 2000
    assert tally.texts_per_second() == 2.0
    assert tally.surprises() == []


def test_an_outcome_may_be_read_before_its_acknowledgement() -> None:
    """The reader can be faster than the producer's acknowledgement."""
    clock = HandClock()
    tally = Tally([SampleRecord(b"a", b"1", "good")], clock)
    tally.note_sent()
    tally.note_outcome(_result(0, "POSITIVE", clock.wall_ms()))
    assert not tally.finished
    tally.note_acknowledged(0, 0, 0)
    assert tally.finished
    assert tally.waiting == 0


@pytest.mark.parametrize("holds", [True, False])
def test_a_summary_is_good_only_if_audit_and_outcomes_are(*, holds: bool) -> None:
    """An unexpected dead letter breaks a promise, as a failed audit does."""
    clock = HandClock()
    audit = {"consumed": 1, "published": 0, "dead_lettered": 1, "reasons": {"null_value": 1}}
    audit |= {"missing": 0, "duplicated": 0, "reordered": 0, "holds": holds}
    expected = _sent([SampleRecord(b"a", None, "", expected=DeadLetterReason.NULL_VALUE)], clock)
    surprising = _sent([SampleRecord(b"a", b"{}", "fine")], clock)
    for tally in (expected, surprising):
        tally.note_outcome(_dead(0, DeadLetterReason.NULL_VALUE, clock.wall_ms()))
    assert Summary(audit, expected, tuple(expected.surprises()), 0, {}).good is holds
    assert not Summary(audit, surprising, tuple(surprising.surprises()), 0, {}).good
    assert '"agreement": null' in Summary(audit, expected, (), 0, {}).as_json()


def test_plain_lines_are_printed_every_two_seconds() -> None:
    clock, file = HandClock(), io.StringIO()
    view = PlainView(Console(file=file, width=80), clock)
    tally = _sent([SampleRecord(b"a", b"1", "good")], clock)
    for _ in range(100):
        view.show(tally)
        clock.sleep(0.03)
    assert file.getvalue().count("0 of 1 done") == 2


def test_elapsed_and_remaining_time_are_shown() -> None:
    """The remaining time is an estimate from the mean speed so far."""
    clock = HandClock()
    tally = _sent([SampleRecord(b"a", b"1", "good") for _ in range(4)], clock)
    assert tally.remaining_s() is None
    clock.sleep(6.0)
    tally.note_outcome(_result(0, "POSITIVE", clock.wall_ms()))
    assert "1 of 4  6 s, 18 s left" in _drawn(tally)
    for offset in (1, 2, 3):
        tally.note_outcome(_result(offset, "POSITIVE", clock.wall_ms()))
    clock.sleep(5.0)
    assert "4 of 4  6 s\n" in re.sub(" +\n", "\n", _drawn(tally))


def test_a_plain_view_reports_a_wait_every_few_seconds() -> None:
    """A short wait prints nothing, and a later wait starts over."""
    file = io.StringIO()
    view = PlainView(Console(file=file, width=80), HandClock())
    for activity, seconds in (("loading", 7), ("auditing", 1), ("training", 4)):
        for tenths in range(10 * seconds):
            view.wait(activity, tenths / 10)
    assert file.getvalue().splitlines() == [
        "loading ... 3 s",
        "loading ... 6 s",
        "training ... 3 s",
    ]


def test_a_live_view_shows_a_wait_and_removes_it() -> None:
    """The last frame stays on the screen, the line of the wait does not."""
    clock, file = HandClock(), io.StringIO()
    view = LiveView(Console(file=file, width=80, force_terminal=True), clock, "demo")
    view.wait("loading the model", 6.0)
    assert "loading the model ... 6 s" in file.getvalue()
    clock.sleep(1.0)
    view.show(_sent([SampleRecord(b"a", b"1", "good")], clock))
    clock.sleep(1.0)
    view.wait("auditing", 2.0)
    assert "auditing ... 2 s" in file.getvalue()
    view.close()
    assert "auditing" not in file.getvalue().rpartition("0 of 1")[2]
    view.close()


def test_next_steps_name_the_program() -> None:
    console = Console(file=io.StringIO(), width=100, record=True)
    console.print(next_steps(".venv/bin/streamlabel"))
    assert ".venv/bin/streamlabel init --topic TOPIC" in console.export_text()


@pytest.mark.parametrize(
    ("argument", "installed", "command"),
    [
        ("/usr/bin/streamlabel", True, "streamlabel"),
        ("worker/__main__.py", False, "streamlabel"),
        (".venv/bin/streamlabel", False, ".venv/bin/streamlabel"),
    ],
)
def test_the_program_is_named_as_it_can_be_started(
    argument: str, command: str, monkeypatch: pytest.MonkeyPatch, *, installed: bool
) -> None:
    """A program outside of PATH is named with its relative path."""
    monkeypatch.setattr("sys.argv", [argument])
    monkeypatch.setattr("shutil.which", lambda name: f"/usr/bin/{name}" if installed else None)
    assert program() == command
