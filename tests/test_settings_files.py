"""Settings files: the search for one, broken ones; and values that no cluster has."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from worker.cli.main import main
from worker.errors import SettingsError
from worker.settings import Loaded, child_environment, find_config, load

DEEP = 5_000


def refusal(flags: dict[str, str] | None = None, config: Path | None = None) -> str:
    with pytest.raises(SettingsError) as refused:
        load(flags, config, environ={})
    return str(refused.value)


@pytest.mark.parametrize(
    "content",
    [
        "x = " + "[" * DEEP + "]" * DEEP,
        "x = " + "{a=" * DEEP + "1" + "}" * DEEP,
        "kafka." + "a." * DEEP + "b = 1",
        "[kafka." + "a." * DEEP + "b]\nc = 1",
        "[" + "a." * DEEP + "b]\nc = 1",
        "kafka.client_id." + "a." * DEEP + "b = 1",
        "kafka.client_id = " + "[" * 300 + "]" * 300,
    ],
    ids=["lists", "tables", "a key", "a table", "an unknown table", "under a setting", "in one"],
)
def test_a_deeply_nested_settings_file_is_refused_in_one_line(tmp_path: Path, content: str) -> None:
    """A process of its own has the stack depth that a user's has."""
    config = tmp_path / "s.toml"
    config.write_text(content)
    command = [sys.executable, "-P", "-m", "worker", "topics", "describe", "--config", str(config)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=child_environment()
    )
    assert done.returncode == 2, done.stderr[-1000:]
    assert "Traceback" not in done.stderr
    head, message = done.stderr.splitlines()
    assert head == "streamlabel: wrong settings"
    assert len(message) < 1000


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    """Some editors write one."""
    config = tmp_path / "s.toml"
    config.write_bytes(b'\xef\xbb\xbf[kafka]\r\ngroup_id = "mine"\r\n')
    assert load(config=config, environ={}).settings.kafka.group_id == "mine"


def test_a_settings_file_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    config = tmp_path / "s.toml"
    config.write_text('[kafka]\ngroup_id = "mine"\n', encoding="utf-16")
    assert refusal(config=config) == (f"can't read the settings file {config}: not UTF-8 (byte 0)")


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_port_out_of_range_is_refused(port: str) -> None:
    message = refusal({"kafka.bootstrap_servers": f"a:9092, [::1]:{port}"})
    assert f"the port of '[::1]:{port}' is not between 1 and 65535" in message


@pytest.mark.parametrize(
    "name",
    [".", "..", "__consumer_offsets", "__transaction_state", "__share_group_state"],
)
@pytest.mark.parametrize("option", ["input.topic", "output.topic", "output.dead_letter_topic"])
def test_a_topic_name_that_kafka_reserves_is_refused(option: str, name: str) -> None:
    message = refusal({option: name})
    assert message.startswith(f"{option} = {name!r} ")
    assert len(message.splitlines()) == 1


def write(folder: Path, group: str, name: str = "streamlabel.toml") -> Path:
    file = folder / name
    file.write_text(f'[kafka]\ngroup_id = "{group}"\n')
    return file


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, empty."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_file_in_the_current_directory_is_found(directory: Path) -> None:
    assert find_config(None, {}) is None
    write(directory, "here")
    assert find_config(None, {}) == Path("streamlabel.toml")
    assert find_config(None, {"STREAMLABEL_CONFIG": ""}) == Path("streamlabel.toml")


def test_a_variable_overrides_the_current_directory_and_the_flag_overrides_both(
    directory: Path, tmp_path: Path
) -> None:
    write(directory, "here")
    by_variable, by_flag = write(tmp_path, "variable", "v.toml"), write(tmp_path, "flag", "f.toml")
    environ = {"STREAMLABEL_CONFIG": str(by_variable)}
    assert find_config(None, environ) == by_variable
    assert find_config(by_flag, environ) == by_flag
    loaded = load(config=find_config(None, environ), environ=environ)
    assert (loaded.settings.kafka.group_id, loaded.file) == ("variable", by_variable)
    assert loaded.warnings == ()


def test_a_missing_file_is_an_error_that_names_its_origin(directory: Path) -> None:
    write(directory, "here")
    with pytest.raises(SettingsError) as refused:
        find_config(Path("no.toml"), {})
    assert str(refused.value) == (
        "can't read the settings file no.toml: no such file (from --config)"
    )
    with pytest.raises(SettingsError, match=r"no\.toml: no such file \(from STREAMLABEL_CONFIG\)"):
        find_config(None, {"STREAMLABEL_CONFIG": "no.toml"})


def test_a_directory_is_not_a_settings_file(directory: Path) -> None:
    assert refusal(config=directory) == f"can't read the settings file {directory}: Is a directory"


def test_load_does_not_search(directory: Path) -> None:
    """A process of a pool receives its settings whole, in whichever directory it runs."""
    write(directory, "foreign")
    loaded = load({}, environ={})
    assert (loaded.settings.kafka.group_id, loaded.file) == ("streamlabel", None)


def plan(environ: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command that reads the settings and needs no broker."""
    command = [sys.executable, "-P", "-m", "worker", *PLAN]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


PLAN = ("plan", "--rate", "1", "--latency-goal", "1", "--from", "/nowhere.json")


def test_every_command_reads_the_file_in_the_current_directory(directory: Path) -> None:
    (directory / "streamlabel.toml").write_text("[kafkaa]\nx = 1\n")
    alone = {name: v for name, v in child_environment().items() if name != "STREAMLABEL_CONFIG"}
    done = plan(alone)
    assert done.returncode == 2
    assert (
        "[kafkaa]: no such table; did you mean [kafka]? (from file streamlabel.toml)" in done.stderr
    )


def test_a_child_reads_no_file_in_the_current_directory(directory: Path) -> None:
    """The demo and the bench start commands in the user's directory."""
    (directory / "streamlabel.toml").write_text("[kafkaa]\nx = 1\n")
    done = plan(child_environment())
    assert "streamlabel.toml" not in done.stderr
    assert "can't read /nowhere.json" in done.stderr, "the command went on to its own work"


@pytest.mark.parametrize("command", ["demo", "bench"])
def test_the_demo_and_the_bench_do_not_search(
    command: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file may name a production cluster, which neither must touch unasked."""
    write(directory, "production")
    monkeypatch.delenv("STREAMLABEL_CONFIG", raising=False)
    received: list[Loaded] = []
    module = importlib.import_module(f"worker.cli.{command}")
    monkeypatch.setattr(module, "run", lambda _, loaded: received.append(loaded) or 0)
    assert main([command]) == 0
    assert received[0].file is None


def test_a_name_that_no_file_can_have_is_an_error_with_its_origin() -> None:
    with pytest.raises(SettingsError, match=r"File name too long \(from --config\)"):
        find_config(Path("x" * 300), {})


def test_a_directory_that_can_not_be_searched_has_no_settings_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The worker's user may lack the right to search the directory that it was started in."""
    stat = os.stat

    def forbidden(path: Any, *args: Any, **more: Any) -> os.stat_result:
        if str(path) == "streamlabel.toml":
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *args, **more)

    monkeypatch.setattr(os, "stat", forbidden)
    assert find_config(None, {}) is None
