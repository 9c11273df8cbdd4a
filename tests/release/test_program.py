"""A release check says in one line a check what held, and fails if one failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.release import __main__ as program
from tests.release.tree import CheckFailed, NotPossible, Release


def _fails(release: Release) -> str:
    raise CheckFailed("the wheel lacks NOTICE", "the wheel has .env")


def _can_not(release: Release) -> str:
    raise NotPossible("no container engine answers (docker info)")


def _holds(release: Release) -> str:
    return f"{release.version} is good"


@pytest.fixture
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(program.STEPS, "versions", _holds)
    monkeypatch.setitem(program.STEPS, "build", _fails)
    monkeypatch.setitem(program.STEPS, "components of the image", _can_not)


def said(folder: Path, capsys: pytest.CaptureFixture[str], *steps: str) -> tuple[int, list[str]]:
    code = program.main(["--dist", str(folder), "--only", *steps])
    return code, capsys.readouterr().out.splitlines()[1:]


@pytest.mark.usefixtures("_steps")
def test_a_failure_is_told_with_each_fault_and_fails_what_needs_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = said(tmp_path, capsys, "versions", "build", "demo")
    assert code == 1
    assert [" ".join(line.split()) for line in lines[1:]] == [
        "FAIL build the wheel lacks NOTICE",
        "the wheel has .env",
        "FAIL demo not tried",
        "failed: build, demo",
    ]


@pytest.mark.usefixtures("_steps")
def test_a_check_that_is_not_possible_here_fails_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, lines = said(tmp_path, capsys, "versions", "components of the image")
    assert code == 0
    assert "not possible here: no container engine answers (docker info)" in lines[1]
    assert lines[-1] == "passed, without components of the image"
