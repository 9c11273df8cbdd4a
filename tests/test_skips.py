"""CI installs the programs that tests need, and fails on an unexpected skip."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.kube.registry import load_all
from tests.support.skips import EXPECTED, WITHOUT_KAFKA, WITHOUT_REGISTRY, expected
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
    "test_registry": f'def test_it(): pytest.skip("{next(iter(WITHOUT_REGISTRY))}: set it")',
    "test_xfail": "@pytest.mark.xfail(run=False)\ndef test_it(): pass",
}


def run_with(folder: Path, bodies: dict[str, str], *options: str) -> tuple[int, str]:
    """Run pytest on these modules and on one that passes."""
    (folder / "conftest.py").write_text(CONFTEST)
    for name, body in {**bodies, "test_good": "def test_it(): pass"}.items():
        (folder / f"{name}.py").write_text(f"import pytest\n{body}\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options, str(folder)]
    environ = child_environment(PYTHONPATH=str(ROOT), KAFKA_HOME="", REGISTRY_HOME="")
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=folder, env=environ
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("processes", ["0", "2"])
def test_an_unexpected_skip_fails_a_strict_run(tmp_path: Path, processes: str) -> None:
    code, output = run_with(tmp_path, SKIPS | EXPECTABLE, "-n", processes, "--strict-skips")
    assert code == 1, output
    skipped = re.findall(r"UNEXPECTED SKIP (test_\w+)\.py\S*: promtool is not on PATH", output)
    assert sorted(skipped) == sorted(SKIPS), output


def test_an_expected_skip_passes_a_strict_run(tmp_path: Path) -> None:
    code, output = run_with(tmp_path, EXPECTABLE, "-n", "0", "--strict-skips")
    assert (code, "UNEXPECTED" in output) == (0, False), output


def test_without_the_flag_a_skip_passes(tmp_path: Path) -> None:
    assert run_with(tmp_path, SKIPS, "-n", "0")[0] == 0


def test_with_apache_kafka_its_tests_must_not_be_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_HOME", "/somewhere")
    assert not any(map(expected, WITHOUT_KAFKA))
    monkeypatch.delenv("KAFKA_HOME")
    assert all(map(expected, WITHOUT_KAFKA))


def test_with_a_registry_its_tests_must_not_be_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REGISTRY_HOME", "/somewhere")
    assert not any(map(expected, WITHOUT_REGISTRY))
    monkeypatch.delenv("REGISTRY_HOME")
    assert all(map(expected, WITHOUT_REGISTRY))


def test_every_expected_reason_is_used_by_a_test() -> None:
    """An expected reason without a test is left over."""
    code = "".join(
        path.read_text() for path in (ROOT / "tests").rglob("*.py") if path.name != "skips.py"
    )
    code = code.replace("{VARIABLE}", "STREAMLABEL_REFERENCE_MODEL")
    for reason in (*EXPECTED, *WITHOUT_KAFKA, *WITHOUT_REGISTRY):
        assert re.search(rf'f?"{re.escape(reason)}', code), reason


def test_ci_installs_what_tests_need_and_is_strict() -> None:
    script = CI.read_text()
    for program, package in (
        ("chromium", "chromium"),
        ("promtool", "prometheus"),
        ("prometheus", "prometheus"),
    ):
        assert re.search(rf"command -v {program} .*packages\+=\({package}\)", script)
    assert "\nmake test ARGS=--strict-skips\n" in script


def test_ci_runs_scenarios_on_kubernetes_that_exist() -> None:
    script = CI.read_text()
    assert script.endswith('make kube ARGS="${scenarios[*]/#/--only }"\n')
    (named,) = re.findall(r"scenarios=\(([^)]*)\)", script)
    assert {scenario.name for scenario in load_all()} > set(named.split())
    assert len(named.split()) == 8
