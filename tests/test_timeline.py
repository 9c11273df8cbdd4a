"""Timeline: a trace that Perfetto loads, even of a process that was killed; silent when off."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from worker import timeline
from worker.errors import SettingsError


def events(file: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in json.loads(file.read_text()) if event["ph"] == kind]


def test_spans_of_a_thread_nest_and_name_their_thread(tmp_path: Path) -> None:
    file, clock = tmp_path / "trace.json", HandClock()
    with timeline.recording(file, clock):
        with timeline.span("outer", records=2):
            clock.sleep(1.0)
            with timeline.span("inner"):
                clock.sleep(2.0)
            clock.sleep(1.0)
        other = threading.Thread(target=lambda: timeline.spent("alone", 1002.0), name="lane-0")
        other.start()
        other.join()
    inner, outer, alone = events(file, "X")
    assert (outer["name"], outer["ts"], outer["dur"]) == ("outer", 1_000_000_000, 4_000_000)
    assert (inner["name"], inner["ts"], inner["dur"]) == ("inner", 1_001_000_000, 2_000_000)
    assert outer["args"] == {"records": 2}
    assert inner["tid"] == outer["tid"] != alone["tid"]
    names = {event["tid"]: event["args"]["name"] for event in events(file, "M")}
    assert (names[outer["tid"]], names[alone["tid"]]) == ("MainThread", "lane-0")


def test_threads_of_one_name_share_a_track(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with timeline.recording(file, HandClock()):
        for _ in range(2):
            lane = threading.Thread(target=lambda: timeline.spent("part", 0.0), name="lane-0")
            lane.start()
            lane.join()
    assert len({event["tid"] for event in events(file, "X")}) == 1


def test_intervals_may_overlap(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with timeline.recording(file, HandClock()):
        timeline.interval("wait", 1.0, 3.0, records=1)
        timeline.interval("wait", 2.0, 4.0, records=1)
    begins, ends = events(file, "b"), events(file, "e")
    assert [event["ts"] for event in begins] == [1_000_000, 2_000_000]
    assert [event["ts"] for event in ends] == [3_000_000, 4_000_000]
    assert [event["id"] for event in begins] == [event["id"] for event in ends] == [1, 2]


def test_the_file_is_readable_while_the_recording_is_on(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with timeline.recording(file, HandClock()):
        timeline.spent("work", 0.0)
        killed_here = file.read_text()
    assert killed_here.endswith("},\n")
    assert json.loads(killed_here.rstrip(",\n") + "]")[-1]["name"] == "work"


def test_a_full_file_ends_the_recording_and_stays_loadable(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with capture_logs() as logs, timeline.recording(file, HandClock(), most_bytes=1_000):
        for _ in range(100):
            timeline.spent("work", 0.0)
    assert 1 <= len(events(file, "X")) < 20
    assert [log["event"] for log in logs] == ["profile ends early: its file is full"]
    assert logs[0]["most_bytes"] == 1_000


def test_a_disk_that_fills_up_does_not_stop_the_worker() -> None:
    with capture_logs() as logs, timeline.recording(Path("/dev/full"), HandClock()):
        timeline.spent("work", 0.0)
        timeline.spent("work", 0.0)
    assert [log["event"] for log in logs] == ["profile ends early: its file can't be written"]


def test_a_thread_still_at_work_after_the_end_writes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    with timeline.recording(file, HandClock()):
        late = timeline.span("late")
        late.__enter__()
    late.__exit__(None, None, None)
    assert not events(file, "X")


def test_a_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    file = tmp_path / "missing" / "trace.json"
    with pytest.raises(SettingsError, match=r"profile: can't write .*missing/trace\.json"):
        timeline.recording(file, HandClock()).__enter__()


def test_nothing_is_recorded_without_a_file(tmp_path: Path) -> None:
    with timeline.recording(None, HandClock()), timeline.span("work"):
        timeline.interval("wait", 0.0, 1.0)
    assert not list(tmp_path.iterdir())
