"""SettingsReload: SIGHUP, a request or a changed file begins a change of the model."""

from __future__ import annotations

import os
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.workers import wait_until
from worker.errors import ChangeUnderway, SettingsError
from worker.http.model import ModelChange
from worker.runtime.reload import FileWatch, SettingsReload
from worker.settings import Settings, load
from worker.signals import HANG_UP


class Control:
    """Notes what it is asked for."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.asked: list[tuple[str, str]] = []
        self.refused: list[tuple[str, str]] = []
        self.outcome = "changed"
        self.refusals = 0
        self.looks = 0

    def await_looks(self, number: int) -> None:
        """Wait until the state was looked at so many times more."""
        goal = self.looks + number
        wait_until(lambda: self.looks >= goal, what="the state is looked at")

    def change(self, settings: Settings, trigger: str) -> ModelChange:
        if self.outcome == "loading" or self.refusals:
            self.refusals = max(0, self.refusals - 1)
            raise ChangeUnderway("a change is under way")
        self.asked.append((trigger, settings.model.name))
        return ModelChange(trigger, settings.model.name, None, "loading", 0)

    def refuse(self, trigger: str, reason: str) -> None:
        self.refused.append((trigger, reason))

    def state(self) -> dict[str, Any]:
        self.looks += 1
        return {"model": None, "change": {"outcome": self.outcome}}


class Desk:
    """A settings file, and what reads it again."""

    def __init__(self, folder: Path, *, watched: bool = False, file: bool = True) -> None:
        self.file, self.watched = folder / "settings.toml", watched
        self.write("first")
        loaded = load({"kafka.group_id": "by-flag"}, self.file if file else None, environ={})
        self.control = Control(loaded.settings)
        self.triggers = queue.SimpleQueue[str]()
        self.reload = SettingsReload(loaded, self.control, self.triggers, look=0.05)

    def write(self, model: str, more: str = "") -> None:
        watched = str(self.watched).lower()
        self.file.write_text(
            f'[model]\nname = "{model}"\nreload_on_change = {watched}\n{more}', encoding="utf-8"
        )


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    with desk.reload:
        yield desk


def test_sighup_reads_the_file_again_and_keeps_the_flags(desk: Desk) -> None:
    desk.write("second")
    desk.triggers.put(HANG_UP)
    wait_until(lambda: bool(desk.control.asked), what="the change is requested")
    assert desk.control.asked == [("SIGHUP", "second")]


def test_a_wrong_file_is_refused_with_its_reason(desk: Desk) -> None:
    desk.file.write_text("[model]\ndtype = 3\n")
    desk.triggers.put(HANG_UP)
    wait_until(lambda: bool(desk.control.refused), what="it is refused")
    ((trigger, reason),) = desk.control.refused
    assert (trigger, desk.control.asked) == ("SIGHUP", [])
    assert reason.startswith("model.dtype = 3: must be one of auto, ")


def test_other_settings_are_named_as_needing_a_restart(desk: Desk) -> None:
    desk.write("second", more='[batch]\nmax_records = 8\n[log]\nlevel = "debug"\n')
    with capture_logs() as logs:
        desk.triggers.put(HANG_UP)
        wait_until(lambda: bool(desk.control.asked), what="the change is requested")
    (line,) = (line for line in logs if line["log_level"] == "warning")
    assert line["event"] == "changed settings need a restart to take effect"
    assert line["settings"] == ["batch.max_records", "log.level"]


def test_a_second_trigger_waits_until_the_change_under_way_has_ended(desk: Desk) -> None:
    """It is told once, and then reads the file as it is by then."""
    desk.control.outcome = "loading"
    desk.write("second")
    with capture_logs() as logs:
        desk.triggers.put(HANG_UP)
        wait_until(lambda: bool(logs), what="it is told")
        desk.control.await_looks(3)
        desk.write("third")
        assert not desk.control.asked
        desk.control.outcome = "changed"
        wait_until(lambda: bool(desk.control.asked), what="the change is requested")
    assert desk.control.asked == [("SIGHUP", "third")]
    assert [(line["event"], line["log_level"], line["trigger"]) for line in logs] == [
        ("another change of the model is under way: this one waits for its end", "info", "SIGHUP"),
        ("settings read again", "info", "SIGHUP"),
    ]


def test_a_file_that_changes_while_another_change_loads_is_not_lost(tmp_path: Path) -> None:
    desk = Desk(tmp_path, watched=True)
    with desk.reload:
        desk.write("second")
        wait_until(lambda: len(desk.control.asked) == 1, what="the first change is seen")
        desk.control.outcome = "loading"
        desk.write("third")
        desk.control.await_looks(1)
        desk.control.outcome = "failed"
        wait_until(lambda: len(desk.control.asked) == 2, what="the second change is requested")
    assert desk.control.asked == [("settings file", "second"), ("settings file", "third")]


def test_a_change_that_begins_between_look_and_request_is_waited_for(desk: Desk) -> None:
    desk.write("second")
    desk.control.refusals = 1
    desk.triggers.put(HANG_UP)
    wait_until(lambda: bool(desk.control.asked), what="the change is requested")
    assert desk.control.asked == [("SIGHUP", "second")]
    assert not desk.control.refusals


def test_a_request_changes_the_members_that_it_names(desk: Desk) -> None:
    change = desk.reload.request({"name": "third", "max_tokens": 9})
    assert (change.trigger, change.name) == ("POST /model", "third")
    with pytest.raises(SettingsError, match=r"^model.max_tokens = 1: must be .*POST /model\)$"):
        desk.reload.request({"max_tokens": 1})
    with pytest.raises(SettingsError, match=r"model.nam: no such setting"):
        desk.reload.request({"nam": "x"})
    with pytest.raises(SettingsError, match=r"model\.calibration_texts needs model\.dtype"):
        desk.reload.request({"calibration_texts": "/tmp/texts"})
    assert desk.control.asked == [("POST /model", "third")]


def test_a_request_without_members_reads_the_file(desk: Desk) -> None:
    desk.write("second")
    assert desk.reload.request({}).name == "second"
    assert desk.reload.state() == {"model": None, "change": {"outcome": "changed"}}


def test_without_a_file_there_is_nothing_to_read_again(tmp_path: Path) -> None:
    desk = Desk(tmp_path, file=False)
    with pytest.raises(SettingsError, match="no settings file to read again"):
        desk.reload.request({})
    assert desk.reload.request({"name": "third"}).name == "third"


def test_a_changed_file_begins_a_change_if_it_is_watched(tmp_path: Path) -> None:
    desk = Desk(tmp_path, watched=True)
    with desk.reload:
        desk.write("second")
        wait_until(lambda: bool(desk.control.asked), what="the change is seen")
    assert desk.control.asked == [("settings file", "second")]


def test_a_changed_file_is_not_read_unless_it_is_watched(desk: Desk) -> None:
    desk.write("second")
    desk.triggers.put(HANG_UP)  # what it comes after would have come before
    wait_until(lambda: bool(desk.control.asked), what="the change is requested")
    assert desk.control.asked == [("SIGHUP", "second")]


def test_a_file_has_changed_once_it_is_the_same_at_two_looks(tmp_path: Path) -> None:
    file = tmp_path / "settings.toml"
    file.write_text("a")
    watch = FileWatch(file)
    assert not watch.changed()
    file.write_text("b")
    assert [watch.changed() for _ in range(3)] == [False, True, False]
    file.write_text("c")
    assert not watch.changed()
    file.write_text("cd")
    assert [watch.changed() for _ in range(3)] == [False, True, False]
    file.unlink()
    assert [watch.changed() for _ in range(3)] == [False, False, False]
    file.write_text("cd")
    assert [watch.changed() for _ in range(3)] == [False, False, False]


def test_a_file_behind_links_is_followed(tmp_path: Path) -> None:
    """Kubernetes mounts a ConfigMap so: a link to a link, which it swaps."""
    for name, text in (("old", "a"), ("new", "b")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "settings.toml").write_text(text)
    (tmp_path / "..data").symlink_to("old")
    (tmp_path / "settings.toml").symlink_to("..data/settings.toml")
    watch = FileWatch(tmp_path / "settings.toml")
    (tmp_path / "..next").symlink_to("new")
    os.replace(tmp_path / "..next", tmp_path / "..data")  # noqa: PTH105 - as the kubelet does
    assert [watch.changed() for _ in range(3)] == [False, True, False]
