"""CPU time is read from the kernel, and counted for the middle of a drain."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from worker.bench.usage import CpuMeter, listener, own_seconds, process_seconds

_TICK = os.sysconf("SC_CLK_TCK")


def stat(folder: Path, pid: int, user: int, system: int) -> None:
    """Write a process's line; its name contains a space and a parenthesis."""
    (folder / str(pid)).mkdir(exist_ok=True)
    fields = ["S", "1", "1", "1", "0", "-1", "0", "0", "0", "0", "0", str(user), str(system), "0"]
    (folder / str(pid) / "stat").write_text(f"{pid} (a ) name) {' '.join(fields)}")


def test_user_and_system_time_are_added(tmp_path: Path) -> None:
    """A process that has ended has no time."""
    stat(tmp_path, 7, user=30, system=12)
    assert process_seconds(7, tmp_path) == 42 / _TICK
    assert process_seconds(8, tmp_path) is None


def test_the_own_time_grows_with_work() -> None:
    """It counts microseconds, which the kernel's ticks don't."""
    before = own_seconds()
    sum(range(1_000_000))
    assert own_seconds() > before


@pytest.mark.parametrize(("family", "table"), [("tcp", "tcp"), ("tcp6", "tcp6")])
def test_the_process_behind_a_port_is_found(tmp_path: Path, family: str, table: str) -> None:
    """Connections to the port don't count, nor do other ports."""
    (tmp_path / "net").mkdir()
    rows = [
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  t inode",
        "   0: 0100007F:2384 00000000:0000 01 00000000:00000000 00:00000000 00000000  0  0 11 1",
        "   1: 0100007F:2385 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 22 1",
        "   2: 0100007F:2384 00000000:0000 0A 00000000:00000000 00:00000000 00000000  0  0 33 1",
    ]
    (tmp_path / "net" / table).write_text("\n".join(rows))
    for pid, inode in ((1, 11), (2, 22), (3, 33)):
        (tmp_path / str(pid) / "fd").mkdir(parents=True)
        (tmp_path / str(pid) / "fd" / "5").symlink_to(f"socket:[{inode}]")
    assert listener(0x2384, tmp_path) == 3
    assert listener(0x2386, tmp_path) is None


def test_the_kernel_s_own_tables_are_read() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert listener(port) == os.getpid()
    assert listener(port) is None


def test_only_the_middle_of_a_drain_counts() -> None:
    """Between the first reads after 10 and 90 of 100 records: 85 records in 0.17 s of CPU time."""
    times = iter([1.0, 1.17])
    meter = CpuMeter(100, {"worker": lambda: next(times), "broker": lambda: None})
    for done in (4, 10, 50, 95, 100):
        meter.note(done)
    assert meter.us_a_record("worker") == pytest.approx(2000)
    assert meter.us_a_record("broker") is None


def test_a_drain_in_one_read_has_no_cpu_time() -> None:
    meter = CpuMeter(100, {"worker": lambda: 1.0})
    meter.note(100)
    assert meter.us_a_record("worker") is None
