"""Cores are divided between the worker and everything else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from worker.bench import pinning
from worker.bench.pinning import move, running_on, shares
from worker.errors import SettingsError


class Scheduler:
    """Stands in for the kernel: records the cores of each thread."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, usable: set[int]) -> None:
        self.cores: dict[int, set[int]] = {0: usable}
        monkeypatch.setattr(os, "sched_getaffinity", self.cores.__getitem__, raising=False)
        monkeypatch.setattr(os, "sched_setaffinity", self.cores.__setitem__, raising=False)
        monkeypatch.setattr(pinning, "cores", lambda: len(usable))


def test_without_client_cores_all_are_shared() -> None:
    assert shares(0) is None


def test_the_clients_cores_are_not_the_worker_s(monkeypatch: pytest.MonkeyPatch) -> None:
    Scheduler(monkeypatch, {2, 3, 6, 7})
    divided = shares(1)
    assert divided is not None
    assert (divided.model, divided.clients) == ({3, 6, 7}, {2})


def test_a_quota_bounds_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may see 64 cores and have the time of four."""
    Scheduler(monkeypatch, set(range(64)))
    monkeypatch.setattr(pinning, "cores", lambda: 4)
    divided = shares(2)
    assert divided is not None
    assert (divided.model, divided.clients) == ({2, 3}, {0, 1})


def test_a_worker_without_a_core_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the flag, its value and the bound."""
    Scheduler(monkeypatch, {0, 1})
    with pytest.raises(SettingsError, match=r"--client-cores 2 .* 2 usable cores .* at most 1"):
        shares(2)


def test_a_system_without_affinity_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_setaffinity", raising=False)
    with pytest.raises(SettingsError, match="needs Linux"):
        shares(1)


def test_a_thread_gets_its_cores_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads and processes that start inside inherit the chosen cores."""
    scheduler = Scheduler(monkeypatch, {0, 1})
    with running_on(None):
        assert scheduler.cores[0] == {0, 1}
    with running_on(frozenset({1})):
        assert scheduler.cores[0] == {1}
    assert scheduler.cores[0] == {0, 1}


def test_every_thread_of_a_running_process_moves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduler = Scheduler(monkeypatch, {0, 1})
    for thread in (40, 41):
        (tmp_path / "40" / "task" / str(thread)).mkdir(parents=True)
    move(40, frozenset({1}), tmp_path)
    assert {thread: scheduler.cores[thread] for thread in (40, 41)} == {40: {1}, 41: {1}}
