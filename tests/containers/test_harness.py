"""The programs that find an engine and offer wheels, with stand-ins for both."""

from __future__ import annotations

import os
import platform
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.containers import engine, wheels
from tests.containers.engine import NoEngine

ANSWERS = "#!/bin/sh\nexit 0\n"
REFUSES = "#!/bin/sh\necho 'the daemon is not running' >&2\nexit 1\n"
# Notes what it is asked, and gives a folder with a docker that answers.
STARTS = """#!/bin/sh
echo "$1" >> "$2/asked"
mkdir -p "$2/bin"
printf '#!/bin/sh\\nexit 0\\n' > "$2/bin/docker"
chmod +x "$2/bin/docker"
echo "export PATH=$2/bin:\\$PATH DOCKER_HOST=unix://$2/docker.sock DOCKER_CONFIG=$2/config" > "$2/env"
"""


def program(file: Path, text: str) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
    file.chmod(0o755)
    return file


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which an engine could be started: root, Debian, the program; and no docker."""
    program(tmp_path / "home" / "engine", STARTS)
    (tmp_path / "bin").mkdir()
    for name in ("sh", "bash", "mkdir", "chmod"):
        (tmp_path / "bin" / name).symlink_to(f"/bin/{name}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("CONTAINERS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(
        platform, "freedesktop_os_release", lambda: {"VERSION_CODENAME": "bookworm"}
    )
    return tmp_path


def test_an_engine_that_answers_is_taken_and_not_ended(machine: Path) -> None:
    program(machine / "bin" / "docker", ANSWERS)
    with engine.engine(machine / "engine") as running:
        assert running.environment["PATH"] == str(machine / "bin")
    assert not (machine / "engine").exists()


def test_an_engine_is_started_and_ended(machine: Path) -> None:
    folder = machine / "engine"
    folder.mkdir()
    with engine.engine(folder) as running:
        assert running.environment["DOCKER_HOST"] == f"unix://{folder}/docker.sock"
        assert (folder / "asked").read_text() == "up\n"
    assert (folder / "asked").read_text() == "up\ndown\n"


def test_an_engine_is_ended_after_a_failure(machine: Path) -> None:
    (machine / "engine").mkdir()
    with pytest.raises(ZeroDivisionError), engine.engine(machine / "engine"):
        _ = 1 / 0
    assert (machine / "engine" / "asked").read_text() == "up\ndown\n"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda patch: patch.delenv("CONTAINERS_HOME"), "CONTAINERS_HOME names no folder"),
        (lambda patch: patch.setattr(os, "geteuid", lambda: 1000), "only root can start one"),
        (lambda patch: patch.setattr(platform, "machine", lambda: "aarch64"), "only on x86-64"),
    ],
)
def test_a_machine_that_can_start_none_says_why(
    machine: Path, monkeypatch: pytest.MonkeyPatch, change: object, said: str
) -> None:
    assert callable(change)
    change(monkeypatch)
    with pytest.raises(NoEngine, match=said) as reason, engine.engine():
        pass
    assert str(reason.value).startswith("no container engine answers: docker is not installed; ")


def test_an_engine_that_does_not_answer_is_told(machine: Path) -> None:
    program(machine / "bin" / "docker", REFUSES)
    with pytest.raises(NoEngine, match=r"^no container engine answers: the daemon is not running$"):
        engine.answering()


def test_wheels_are_offered_as_a_package_index(tmp_path: Path) -> None:
    name = "Some_Name-1.0-py3-none-any.whl"
    (tmp_path / name).write_bytes(b"content")
    with wheels.offered(tmp_path) as proxy:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": proxy}))
        page = opener.open(f"{wheels.INDEX}/some-name/").read().decode()
        assert f'href="{wheels.INDEX}/{name}"' in page
        assert opener.open(f"{wheels.INDEX}/{name}").read() == b"content"
        for unknown in (f"{wheels.INDEX}/other/", "http://nowhere.test/simple/some-name/"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                opener.open(unknown)
