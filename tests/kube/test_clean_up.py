"""Clean-up and faults that are put right: each part of it happens, even after a failure."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

from tests.kube.__main__ import interrupt
from tests.kube.cluster import Cluster, end, wait
from tests.kube.kafka import Kafka
from tests.kube.release import Release
from tests.kube.site import opened
from tests.kube.verdicts import Failed

READY = [{"type": "Ready", "status": "True"}]


@dataclass
class FakeCluster:
    """Answers kubectl; a command that begins with a word of `fails` fails.

    Attributes:
        addresses: of the broker's pod, each time it is asked for; the last one stays.
    """

    folder: Path = Path("/nowhere")
    namespaces: str = "namespace/default"
    fails: tuple[str, ...] = ()
    addresses: list[str] = field(default_factory=lambda: ["10.0.0.1", "10.0.0.2"])
    asked: list[str] = field(default_factory=list)

    def kubectl(self, *command: str, **_: Any) -> str:
        self.asked.append(" ".join(command))
        if command[0] in self.fails:
            raise Failed(f"{command[0]} failed")
        return self.namespaces if command[1] == "namespaces" else ""

    helm = kubectl

    def get(self, kind: str, *_: str) -> dict[str, Any]:
        if kind == "pods":
            return {"items": []}
        address = self.addresses.pop(0) if len(self.addresses) > 1 else self.addresses[0]
        return {"metadata": {}, "status": {"podIP": address, "conditions": READY}}

    @property
    def real(self) -> Cluster:
        return cast("Cluster", self)

    def has_run(self, text: str) -> bool:
        return any(text in command for command in self.asked)


@pytest.mark.parametrize("fails", ["", "delete"])
def test_the_broker_comes_back_whatever_failed_while_it_was_away(fails: str) -> None:
    cluster = FakeCluster(fails=(fails,))
    with (
        pytest.raises(Failed, match=f"{fails or 'body'} failed"),
        Kafka(cluster.real, "here").away(),
    ):
        raise Failed("body failed")
    assert cluster.asked[-1].endswith("--replicas=1")
    assert cluster.has_run("--ignore-not-found")


def test_a_broker_that_comes_back_at_the_same_address_proves_nothing() -> None:
    with Kafka(FakeCluster().real, "here").away():
        pass
    same = Kafka(FakeCluster(addresses=["10.0.0.1"]).real, "here")
    with pytest.raises(Failed, match=r"same address, 10\.0\.0\.1"), same.away():
        pass


def test_a_release_is_uninstalled_although_its_feed_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_: Release) -> None:
        raise Failed("the producer has failed")

    monkeypatch.setattr(Release, "end_feed", fails)
    cluster = FakeCluster()
    release = Release(cluster.real, Kafka(cluster.real, "here"), "image:tag", "name")
    with pytest.raises(Failed, match="the producer has failed"):
        release.uninstall()
    assert cluster.has_run("uninstall name")


def test_a_namespace_is_in_use_only_if_its_whole_name_exists(tmp_path: Path) -> None:
    longer = FakeCluster(tmp_path, namespaces="namespace/kube-more\nnamespace/default\n")
    with opened(longer.real, "image:tag", "kube"):
        assert longer.has_run("create namespace kube")
    same = FakeCluster(tmp_path, namespaces="namespace/default\nnamespace/kube\n")
    with pytest.raises(Failed, match="the namespace kube exists"), opened(same.real, "i:t", "kube"):
        pytest.fail("it was opened")


def test_the_broker_s_data_go_although_the_namespace_stays(tmp_path: Path) -> None:
    cluster = FakeCluster(tmp_path, fails=("delete",))
    with pytest.raises(Failed, match="delete failed"), opened(cluster.real, "i:t", "kube") as site:
        site.kafka.folder.mkdir()
    assert not site.kafka.folder.exists()


def running(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def waiting(tmp_path: Path) -> Cluster:
    """Give a cluster whose programs start another process and wait for it, as nsenter may."""
    program = tmp_path / "cluster"
    program.write_text(f"#!/bin/sh\nsleep 1000 &\necho $! | tee {tmp_path}/pid\nwait\n")
    program.chmod(0o755)
    return Cluster(tmp_path, program)


def test_a_program_ends_with_what_it_started(waiting: Cluster) -> None:
    process = waiting.inside("any")
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    assert running(pid)
    end(process)
    wait("the other process ends", lambda: not running(pid), 30)
    process.communicate()
    end(process)  # it had ended


def test_a_program_that_is_late_is_a_failure(waiting: Cluster) -> None:
    with pytest.raises(Failed, match=r"^any: no answer after 0.01 s$"):
        waiting.ask("any", timeout=0.01)


def test_a_second_signal_does_not_interrupt_the_clean_up(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: dict[int, Any] = {}
    monkeypatch.setattr(signal, "signal", handlers.__setitem__)
    with pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGTERM, None)
    for number in (signal.SIGTERM, signal.SIGINT):
        handlers[number](number, None)  # raises nothing
    assert set(handlers) == {signal.SIGTERM, signal.SIGINT}
