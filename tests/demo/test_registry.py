"""The demo's registry runs as long as its context; one sentence says what is missing."""

from __future__ import annotations

import importlib.util
import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from rich.console import Console

from tests.support.clocks import HandClock
from worker.cli.main import main
from worker.clock import SystemClock
from worker.demo.formats import AvroDemo
from worker.demo.registry import LocalRegistry
from worker.demo.view import PlainView
from worker.errors import Fatal
from worker.processes import Interrupts

_ANSWERS = """
import pathlib, signal, sys
data, address = sys.argv[2], pathlib.Path(sys.argv[4])
assert (sys.argv[1], sys.argv[3]) == ("--data", "--address-file")
address.with_name("seen").write_text(data)
new = address.with_name("new")
new.write_text("http://127.0.0.1:7/apis\\n")
new.replace(address)
signal.pause()
"""


def _home(tmp_path: Path, program: str) -> Path:
    """Return a folder with a program `start`, and put a `java` on PATH."""
    for name, text in (("start", f"#!{sys.executable}\n{program}"), ("java", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(stat.S_IRWXU)
    return tmp_path


@pytest.fixture(autouse=True)
def _java(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")


def _url(registry: LocalRegistry) -> str:
    while (url := registry.url) is None:
        SystemClock().sleep(0.02)
    return url


def test_a_registry_answers_under_its_url_and_ends_with_its_context(tmp_path: Path) -> None:
    with LocalRegistry(_home(tmp_path, _ANSWERS), SystemClock()) as registry:
        assert _url(registry) == "http://127.0.0.1:7/apis"
        assert registry.process is not None
        assert registry.process.poll() is None
        assert (registry._folder / "seen").read_text() == str(registry.data)
    assert registry.process.returncode is not None
    assert not registry._folder.exists()


def test_a_registry_that_ends_is_reported_with_its_log(tmp_path: Path) -> None:
    home = _home(tmp_path, "import sys; sys.exit('the port is taken')")
    with (
        LocalRegistry(home, SystemClock()) as registry,
        pytest.raises(Fatal, match=r"exited with code 1; its log ends:\n  the port is taken"),
    ):
        _url(registry)


def test_a_registry_that_never_answers_is_given_up(tmp_path: Path) -> None:
    clock = HandClock()
    with LocalRegistry(_home(tmp_path, "import signal; signal.pause()"), clock) as registry:
        assert registry.url is None
        clock.sleep(101)
        with pytest.raises(Fatal, match="did not start within 100 s"):
            assert registry.url
        registry.kill()
    assert registry.process is not None
    assert registry.process.returncode


def test_a_folder_without_a_program_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(Fatal, match=f"there is no {tmp_path}/start"),
        LocalRegistry(tmp_path, SystemClock()),
    ):
        pass


def test_a_missing_java_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = _home(tmp_path, _ANSWERS)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Fatal, match="no java on PATH"), LocalRegistry(home, SystemClock()):
        pass


def _said(capsys: pytest.CaptureFixture[str], *flags: str) -> tuple[int, str]:
    code = main(["demo", "--posts", "1", *flags])
    return code, capsys.readouterr().err


def test_a_demo_in_avro_without_a_registry_says_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REGISTRY_HOME", "")
    code, error = _said(capsys, "--format", "avro")
    assert code == 1
    assert error == (
        "streamlabel: --format avro needs a schema registry: set REGISTRY_HOME to the folder of an "
        "unpacked one (with Java on PATH), or give --registry-url\n"
    )


def test_a_demo_in_avro_without_the_extra_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "fastavro" else found(name)
    )
    code, error = _said(capsys, "--format", "avro", "--registry-url", "http://127.0.0.1:1")
    assert code == 1
    assert error == (
        "streamlabel: --format avro needs fastavro: pip install 'streamlabel[registry]'\n"
    )


def test_a_registry_for_json_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code, error = _said(capsys, "--registry-url", "http://127.0.0.1:1")
    assert code == 2
    assert "--registry-url needs --format avro" in error


def test_a_running_registry_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    """Its subjects are the demo's own, so that they can be deleted."""
    clock = SystemClock()
    with ExitStack() as stack, Interrupts(clock) as interrupts:
        view = PlainView(Console(), clock)
        assert AvroDemo("http://127.0.0.1:1", stack, interrupts, clock, view).external
    assert capsys.readouterr().out == "using the registry at http://127.0.0.1:1\n"
