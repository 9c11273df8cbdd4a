"""The threads of the model and of the tokenizer: those that this process may use."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs

from tests.support.models import make_checkpoint
from worker import limits
from worker.inference import threads
from worker.inference.loading import load
from worker.inference.threads import use_threads
from worker.limits import CpuLimit
from worker.settings import ModelSettings

POOL = "RAYON_NUM_THREADS"


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Restore torch's threads and the variable, which apply to the whole process."""
    monkeypatch.setenv(POOL, "")
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def allow(monkeypatch: pytest.MonkeyPatch, limit: CpuLimit, *, by_torch: int = 64) -> None:
    for module in (limits, threads):
        monkeypatch.setattr(module, "cpu_limit", lambda: limit)
    monkeypatch.setattr(threads, "memory_limit", lambda: None)
    monkeypatch.setattr(threads, "_BY_TORCH", by_torch)


@pytest.mark.parametrize(
    ("wanted", "processes", "quota", "by_torch", "expected"),
    [
        (None, 1, None, 64, (16, "16")),
        (None, 1, 2.5, 64, (2, "2")),
        (None, 1, 0.5, 64, (1, "1")),
        (None, 4, 8.0, 64, (2, "2")),
        (None, 9, 4.0, 64, (1, "1")),
        (5, 4, 8.0, 64, (5, "2")),
        # A model on a GPU needs one thread, and its tokenizer all the others.
        (1, 1, None, 64, (1, "16")),
        # Physical cores, or OMP_NUM_THREADS. A tokenizer gains from the others too.
        (None, 1, None, 8, (8, "16")),
        (12, 1, None, 8, (12, "16")),
    ],
)
def test_threads_follow_the_cores_unless_they_are_set(
    wanted: int | None,
    processes: int,
    quota: float | None,
    by_torch: int,
    expected: tuple[int, str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow(monkeypatch, CpuLimit(16, quota), by_torch=by_torch)
    use_threads(wanted, processes)
    assert (torch.get_num_threads(), os.environ[POOL]) == expected


def test_a_variable_that_is_set_sizes_the_tokenizers_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    allow(monkeypatch, CpuLimit(16, 2.0))
    monkeypatch.setenv(POOL, "7")
    with capture_logs() as logs:
        use_threads(None, 1)
    assert os.environ[POOL] == "7"
    assert logs == [
        {
            "event": "limits of this process",
            "log_level": "info",
            "cpu": "2 cores: quota 2 of 16",
            "memory": "no limit",
            "threads": 2,
            "tokenizer_threads": "7",
        }
    ]


@pytest.mark.parametrize(
    ("wanted", "processes", "quota", "warns"),
    [
        (3, 1, 2.5, True),
        (2, 1, 2.5, False),
        (2, 2, 2.5, True),
        (None, 4, 2.5, True),
        (None, 1, 0.5, False),
        (64, 1, None, False),
    ],
)
def test_more_threads_than_the_quota_allows_are_reported(
    wanted: int | None,
    processes: int,
    quota: float | None,
    warns: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    allow(monkeypatch, CpuLimit(16, quota))
    with capture_logs() as logs:
        use_threads(wanted, processes)
    warnings = [entry["event"] for entry in logs if entry["log_level"] == "warning"]
    assert [event.startswith("more threads than the CPU quota") for event in warnings] == [
        True
    ] * warns


@pytest.mark.usefixtures("offline")
def test_lanes_follow_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lane for each thread; one thread has none."""
    folder = str(make_checkpoint(tmp_path / "model"))
    allow(monkeypatch, CpuLimit(16, 3.0))
    _, classifier = load(ModelSettings(name=folder))
    forward: Any = classifier.forward
    assert forward.count == 3
    allow(monkeypatch, CpuLimit(16, 1.0))
    _, classifier = load(ModelSettings(name=folder))
    assert not hasattr(classifier.forward, "count")


_COUNT = """
import json, sys
from pathlib import Path
from tokenizers import Tokenizer
from worker import limits, logs
limits.cpu_limit = lambda: limits.CpuLimit(16, int(sys.argv[2]))
from worker.inference.threads import use_threads

def count():
    return len(list(Path("/proc/self/task").iterdir()))

logs.configure("warning", "plain")
use_threads(None, 1)
tokenizer = Tokenizer.from_file(sys.argv[1])
before = count()
tokenizer.encode_batch_fast(["a text of some words"] * 64)
print(json.dumps(count() - before))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
@pytest.mark.parametrize("allowed", [1, 3])
def test_the_tokenizers_pool_has_as_many_threads_as_the_quota_has_cores(
    tmp_path: Path, allowed: int
) -> None:
    """In a process of its own, because the pool starts once and stays."""
    file = make_checkpoint(tmp_path / "model") / "tokenizer.json"
    environ = {name: value for name, value in os.environ.items() if name != POOL}
    done = subprocess.run(
        [sys.executable, "-c", _COUNT, file, str(allowed)],
        capture_output=True,
        text=True,
        check=True,
        env=environ,
    )
    assert json.loads(done.stdout) == allowed


def test_a_load_beside_another_model_computes_with_one_thread() -> None:
    """The model that it loads gets the threads that are set, on every other thread."""
    torch.set_num_threads(3)
    with threads.few_threads():
        assert threads.in_few_threads()
        assert (torch.get_num_threads(), threads.threads_of_model()) == (1, 3)
        use_threads(2, 1)
        assert (torch.get_num_threads(), threads.threads_of_model()) == (1, 2)
    assert not threads.in_few_threads()
    assert (torch.get_num_threads(), threads.threads_of_model()) == (2, 2)
