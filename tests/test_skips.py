"""CI skips nothing by chance: what the tests name is installed, and any other skip fails the run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.skips import EXPECTED, WITHOUT_KAFKA, expected
from worker.settings import child_environment

ROOT = Path(__file__).parent.parent
CI = ROOT / ".ci" / "run"
CONFTEST = "from tests.support.skips import pytest_addoption, pytest_configure\n"


SKIPS = {
    "test_in_one": 'def test_it(): pytest.skip("promtool is not on PATH")',
    "test_by_mark": '@pytest.mark.skipif(True, reason="promtool is not on PATH")\ndef test_it(): 0',
    "test_module": 'pytest.skip("promtool is not on PATH", allow_module_level=True)',
    "test_import": 'pytest.importorskip("no_such", reason="promtool is not on PATH")',
}
EXPECTABLE = {
    "test_listed": f'def test_it(): pytest.skip("{next(iter(EXPECTED))} and more")',
    "test_broker": f'def test_it(): pytest.skip("{next(iter(WITHOUT_KAFKA))} can not")',
    "test_xfail": "@pytest.mark.xfail(run=False)\ndef test_it(): pass",
}


def run_with(folder: Path, bodies: dict[str, str], *options: str) -> tuple[int, str]:
    """A run of its own; beside these there is a test that passes."""
    (folder / "conftest.py").write_text(CONFTEST)
    for name, body in {**bodies, "test_good": "def test_it(): pass"}.items():
        (folder / f"{name}.py").write_text(f"import pytest\n{body}\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(folder)]
    environ = child_environment(PYTHONPATH=str(ROOT), KAFKA_HOME="")
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environ
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("processes", ["0", "2"])
def test_a_skip_by_chance_fails_the_run_where_that_is_asked(tmp_path: Path, processes: str) -> None:
    code, told = run_with(tmp_path, SKIPS | EXPECTABLE, "-n", processes, "--strict-skips")
    assert code == 1, told
    found = re.findall(r"UNEXPECTED SKIP (test_\w+)\.py\S*: promtool is not on PATH", told)
    assert sorted(found) == sorted(SKIPS), told


def test_an_expected_skip_fails_nothing(tmp_path: Path) -> None:
    code, told = run_with(tmp_path, EXPECTABLE, "-n", "0", "--strict-skips")
    assert (code, "UNEXPECTED" in told) == (0, False), told


def test_elsewhere_a_skip_is_a_skip(tmp_path: Path) -> None:
    assert run_with(tmp_path, SKIPS, "-n", "0")[0] == 0


def test_with_apache_kafka_none_of_its_tests_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", "/somewhere")
    assert not any(map(expected, WITHOUT_KAFKA))
    monkeypatch.delenv("KAFKA_HOME")
    assert all(map(expected, WITHOUT_KAFKA))


def test_every_expected_reason_is_a_tests_own() -> None:
    """A line that no test's skip begins with would be left over."""
    code = "".join(
        path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != "skips.py"
    )
    code = code.replace("{VARIABLE}", "STREAMLABEL_REFERENCE_MODEL")
    for reason in (*EXPECTED, *WITHOUT_KAFKA):
        assert re.search(rf'f?"{re.escape(reason)}', code), reason


def test_ci_installs_what_the_tests_name_and_is_strict() -> None:
    told = CI.read_text()
    for program, package in (
        ("chromium", "chromium"),
        ("promtool", "prometheus"),
        ("prometheus", "prometheus"),
    ):
        assert re.search(rf"command -v {program} .*packages\+=\({package}\)", told)
    assert "make test ARGS=--strict-skips" in told
