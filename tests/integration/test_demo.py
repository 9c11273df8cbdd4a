"""`streamlabel demo` as a user runs it: real workers, a real model, and nothing left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import Broker
from tests.support.registry import ApicurioRegistry, registry_home
from worker.clock import SystemClock
from worker.settings import child_environment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

BROKEN = {
    "empty_text": 2,
    "not_a_string": 1,
    "not_an_object": 1,
    "not_json": 1,
    "not_utf8": 1,
    "null_value": 1,
    "path_missing": 1,
    "too_large": 1,
}
# Values that can't be read, in Avro.
BROKEN_AVRO = {
    "empty_text": 2,
    "not_a_string": 1,
    "not_framed": 1,
    "null_value": 1,
    "path_missing": 1,
    "schema_mismatch": 1,
    "too_large": 1,
    "unknown_schema": 2,
}


class Demo:
    """Runs the command on the tests' broker, or on the embedded one that it starts."""

    def __init__(self, broker: Broker, temporary: Path) -> None:
        self._temporary = temporary
        temporary.mkdir()
        variables = {"TMPDIR": str(temporary)}
        if broker.kind != "embedded":
            variables["KAFKA_BOOTSTRAP_SERVERS"] = broker.bootstrap_servers
        self._environ = child_environment(**variables)

    def start(self, *flags: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "worker", "demo", *flags],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self._environ,
            start_new_session=True,
        )

    def leftovers(self) -> list[str]:
        """Return the contents of its temporary folder, and the processes that use it."""
        mark = f"TMPDIR={self._temporary}".encode()
        leftovers = [str(path) for path in self._temporary.iterdir()]
        for environ in Path("/proc").glob("[0-9]*/environ"):
            try:
                if mark in environ.read_bytes().split(b"\0"):
                    leftovers.append(environ.with_name("cmdline").read_bytes().decode())
            except OSError:
                continue  # the process has exited meanwhile
        return leftovers


@pytest.fixture
def demo(broker: Broker, tmp_path: Path) -> Iterator[Demo]:
    """Provide the command; leftovers fail the test."""
    demo = Demo(broker, tmp_path / "temporary")
    yield demo
    assert demo.leftovers() == []


@pytest.mark.parametrize(
    "flags",
    [(), ("--workers", "2"), ("--delivery", "exactly_once")],
    ids=["one worker", "two workers", "exactly once"],
)
def test_every_promise_holds(demo: Demo, flags: tuple[str, ...]) -> None:
    """No record is missing, duplicated or reordered; dead letters are the broken records."""
    assert_every_promise_held(demo, BROKEN, *flags)


def test_every_promise_holds_in_avro(demo: Demo, registry: ApicurioRegistry) -> None:
    """A running registry has none of the demo's subjects afterwards."""
    flags = ("--format", "avro", "--registry-url", registry.url, "--delivery", "exactly_once")
    assert_every_promise_held(demo, BROKEN_AVRO, *flags)
    assert not [name for name in registry.ask("GET", "/subjects") if name.startswith("texts.")]


@pytest.mark.parametrize("seconds", [1.5, 4.0])
def test_an_interrupt_leaves_no_registry_behind(demo: Demo, seconds: float) -> None:
    """The demo starts one of its own; see the test of any interrupt."""
    registry_home()
    running = demo.start("--posts", "2000", "--rate", "20", "--format", "avro")
    SystemClock().sleep(seconds)
    os.killpg(running.pid, signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode in {130, -signal.SIGINT}, errors


def assert_every_promise_held(demo: Demo, broken: Mapping[str, int], *flags: str) -> None:
    running = demo.start("--posts", "60", "--json", *flags)
    output, errors = running.communicate(timeout=500)
    assert running.returncode == 0, errors
    summary = json.loads(output.splitlines()[-1])
    assert summary["missing"] == summary["duplicated"] == summary["reordered"] == 0
    assert summary["consumed"] == summary["published"] + summary["dead_lettered"]
    assert summary["consumed"] >= 60 + sum(broken.values())
    assert summary["reasons"] == broken
    assert 0 < summary["texts_per_second"] <= 1.05 * summary["rate"]
    assert 0 < summary["p50_ms"] <= summary["p99_ms"]
    assert 0.5 < summary["agreement"] <= 1


@pytest.mark.parametrize("seconds", [0.3, 1.5, 6.0])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_at_any_moment_leaves_nothing_behind(
    demo: Demo, seconds: float, number: signal.Signals
) -> None:
    """Ctrl-C while starting, preparing or streaming exits 130 and cleans up."""
    running = demo.start("--posts", "2000", "--rate", "20")
    SystemClock().sleep(seconds)
    os.killpg(running.pid, number)
    _, errors = running.communicate(timeout=60)
    # Until the demo installs its handlers, the signal kills Python.
    assert running.returncode in {130, -number}, errors


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
def test_leftovers_of_a_running_demo_are_found(demo: Demo) -> None:
    """The check of the other tests can fail."""
    running = demo.start("--posts", "10")
    clock = SystemClock()
    deadline = clock.monotonic() + 30
    while not demo.leftovers() and clock.monotonic() < deadline:
        clock.sleep(0.05)
    leftovers = demo.leftovers()
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=60)
    assert leftovers
