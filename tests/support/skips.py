"""Expected skips and their reasons. With `--strict-skips`, as in CI, any other skip fails the run.

Otherwise a test that skips because of a missing package would go unnoticed. `conftest` imports
these hooks of pytest.
"""

from __future__ import annotations

import os
from typing import Final

import pytest

# Start of a reason -> why the skip is expected on the CI machine.
EXPECTED: Final = {
    "docker compose is not installed": "CI may itself run in a container; the file is also held to "
    "the published schema of compose files",
    "cyclonedx-bom is not installed": "`make release-check` installs it",
    "systemd-analyze is not installed": "a container has no systemd",
    "no container engine answers": "`make test` starts none; `make containers` does",
    "STREAMLABEL_REFERENCE_MODEL names": "the reference model comes from a hub, which CI may not reach",
    "Triton is not installed": "it comes with torch's builds for GPUs",
    "this processor has no products of bytes": "it has neither AMX nor VNNI",
    "no cgroup can be made here": "it takes root and a writable /sys/fs/cgroup",
    "one core: a limit of one": "there is nothing to limit",
    "this machine has no IPv6": "a network may have none",
}
# The same without Apache Kafka; the last lines of a run name the broker.
WITHOUT_KAFKA: Final = {
    "the embedded broker": "it can't do all that Kafka does",
    "needs an Apache Kafka of its own": "to break it",
}
WITHOUT_REGISTRY: Final = {"needs a schema registry": "only a real one has all of its rules"}
WITHOUT_HELM: Final = {"needs Helm": "it is no Python package"}
WITHOUT_KUBERNETES: Final = {"KEDA's definitions are not found": "they come with KEDA"}


def expected(reason: str) -> bool:
    """Return whether a skip for this reason is expected."""
    kafka = {} if os.environ.get("KAFKA_HOME") else WITHOUT_KAFKA
    registry = {} if os.environ.get("REGISTRY_HOME") else WITHOUT_REGISTRY
    helm = {} if os.environ.get("HELM") else WITHOUT_HELM
    kubernetes = {} if os.environ.get("KUBERNETES_HOME") else WITHOUT_KUBERNETES
    return reason.startswith((*EXPECTED, *kafka, *registry, *helm, *kubernetes))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--strict-skips",
        action="store_true",
        help="fail on a skip that tests/support/skips.py does not list",
    )


def pytest_configure(config: pytest.Config) -> None:
    # The first of several test processes gets every report.
    if config.getoption("--strict-skips") and not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Strict())


class _Strict:
    def __init__(self) -> None:
        self._found: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._note(report)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        self._note(report)

    def _note(self, report: pytest.TestReport | pytest.CollectReport) -> None:
        if (
            report.skipped
            and not hasattr(report, "wasxfail")
            and isinstance(report.longrepr, tuple)
        ):
            reason = report.longrepr[2].removeprefix("Skipped: ")
            if not expected(reason):
                self._found.append(f"{report.nodeid}: {reason}")

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._found and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._found:
            terminalreporter.write_line(f"UNEXPECTED SKIP {line}", red=True)
