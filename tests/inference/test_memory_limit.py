"""A model that can't fit its container's memory limit is refused before the kernel kills it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from tests.support.models import make_checkpoint
from worker.errors import SettingsError
from worker.inference import loading, memory, warm
from worker.inference.memory import Loading, require_base, require_memory
from worker.inference.placement import require_room
from worker.inference.skeleton import stored_weights, weights_of
from worker.limits import groups, may_swap
from worker.settings import ModelSettings

MIB = 2**20
BASE, USUAL_BASE = 240, 300  # MiB of a process without a model: certain, and usual
# 100 MiB of weights in float32, 50 in bfloat16.
WEIGHTS = 25 * MIB
STORED_WIDE, STORED_HALF = {"float32": WEIGHTS}, {"bfloat16": WEIGHTS}
PACKED = Loading(WEIGHTS, STORED_WIDE, "bfloat16", compares=True, stays=True)


@pytest.fixture(autouse=True)
def no_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "may_swap", lambda: False)


def limit(monkeypatch: pytest.MonkeyPatch, mib: float | None) -> None:
    size = None if mib is None else int(mib * MIB)
    monkeypatch.setattr(memory, "memory_limit", lambda: size)


@pytest.mark.parametrize(
    ("stored", "dtype", "compares", "stays", "least", "lasting"),
    [
        # Weights in the type of their file are mapped: the kernel can drop and read them again.
        (STORED_WIDE, "float32", False, True, 0, 0),
        (STORED_WIDE, "float32", True, True, 0, 0),
        (STORED_WIDE, "bfloat16", False, True, 50, 50),
        (STORED_WIDE, "bfloat16", True, True, 50, 50),
        (STORED_HALF, "float32", False, True, 100, 100),
        (STORED_HALF, "bfloat16", False, True, 0, 0),
        # The comparison is in float32, and ends.
        (STORED_HALF, "bfloat16", True, True, 100, 0),
        # On a GPU, in int8 or by OpenVINO the weights leave this form.
        (STORED_HALF, "float32", True, False, 100, 0),
        ({"bfloat16": 3, "float32": 1}, "bfloat16", False, True, 12.5, 12.5),
        ({"float16": 1}, "bfloat16", False, True, 50, 50),
        ({}, "float32", False, True, 0, 0),
    ],
)
def test_only_memory_that_can_not_be_dropped_is_certain(
    stored: dict[str, int], dtype: str, compares: bool, stays: bool, least: float, lasting: float
) -> None:
    loads = Loading(WEIGHTS, stored, dtype, compares=compares, stays=stays)
    assert (loads.least / MIB, loads.lasting / MIB) == (least, lasting)


@pytest.mark.parametrize(
    ("stored", "dtype", "compares", "weights"),
    [
        (STORED_WIDE, "float32", False, 100),
        (STORED_WIDE, "float32", True, 100),
        (STORED_WIDE, "bfloat16", True, 100),
        (STORED_HALF, "bfloat16", False, 50),
        (STORED_HALF, "bfloat16", True, 100),
        (STORED_HALF, "float32", True, 200),  # converted, then repacked
    ],
)
def test_the_usual_need_counts_mapped_and_repacked_weights(
    stored: dict[str, int], dtype: str, compares: bool, weights: float
) -> None:
    loads = Loading(WEIGHTS, stored, dtype, compares=compares, stays=True)
    assert loads.usual / MIB == pytest.approx(1.1 * weights + 64)
    size = loads.size(dtype) / MIB
    by_openvino = replace(loads, copies=2)
    assert by_openvino.usual / MIB == pytest.approx(1.1 * (weights + 2 * size) + 64)


def test_weights_of_an_unknown_number_refuse_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may have weights that the model does not use, and can't be built without loading."""
    loads = replace(PACKED, weights=None)
    assert (loads.least, loads.lasting, loads.usual) == (0, 0, PACKED.usual)
    limit(monkeypatch, BASE)
    with capture_logs() as logs:
        require_memory("my-model", loads, 1)
    assert [entry["log_level"] for entry in logs] == ["warning"]


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize(("dtype", "stays"), [("auto", False), ("bfloat16", True)])
def test_a_number_type_that_may_be_given_up_does_not_last(
    dtype: Any, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` falls back to float32, whose weights may be mapped from their file."""
    seen: list[Loading] = []
    monkeypatch.setattr(loading, "choose_dtype", lambda *_: torch.bfloat16)
    monkeypatch.setattr(
        loading, "require_memory", lambda _, loads, *__, **___: seen.append(loads) or 0
    )
    folder = make_checkpoint(tmp_path / "model")
    loading.load(ModelSettings(name=str(folder), dtype=dtype, device="cpu"))
    assert [loads.stays for loads in seen] == [stays]


@pytest.mark.parametrize(("processes", "needed"), [(1, BASE + 50), (3, 3 * (BASE + 50))])
def test_what_certainly_does_not_fit_is_refused(
    processes: int, needed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names model, need, limit and remedies; a byte more, and it is a warning."""
    limit(monkeypatch, needed - 1)
    with pytest.raises(SettingsError) as refused:
        require_memory("my-model", PACKED, processes)
    text = str(refused.value)
    assert "my-model need" in text
    assert f"at least {needed} MiB of memory, {50 * processes} MiB of it for weights" in text
    assert f"the container's or service's limit is {needed - 1} MiB" in text
    assert "raise its memory limit" in text
    assert ("3 processes" in text and "start fewer processes" in text) == (processes == 3)
    assert "choose a smaller model" in text
    limit(monkeypatch, needed)
    with capture_logs() as logs:
        require_memory("my-model", PACKED, processes)
    assert [entry["log_level"] for entry in logs] == ["warning"]


def test_a_model_beside_another_is_told_and_counts_what_is_in_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The memory of the model that stays is measured, not estimated."""
    in_use = 900 * MIB
    limit(monkeypatch, 949)
    with capture_logs() as logs, pytest.raises(SettingsError, match="beside the 900 MiB in use"):
        require_memory("my-model", PACKED, 1, in_use)
    assert logs[0]["event"] == "loading a model beside the one in use"
    assert (logs[0]["in_use"], logs[0]["limit"]) == ("900 MiB", "949 MiB")
    limit(monkeypatch, 950)
    assert require_memory("my-model", PACKED, 1, in_use) == in_use + PACKED.usual


def test_a_model_beside_another_needs_room_on_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (99 * MIB, 200 * MIB))
    require_room("my-model", 99 * MIB, "cuda")
    require_room("my-model", 999 * MIB, "cpu")
    with pytest.raises(SettingsError, match="needs 100 MiB on the GPU, which has 99 MiB free"):
        require_room("my-model", 100 * MIB, "cuda")


def test_processes_need_not_all_load_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights that one compares with are freed before the next one needs them."""
    loads = replace(PACKED, stored=STORED_HALF)
    limit(monkeypatch, 3 * BASE + 99)
    with pytest.raises(SettingsError, match=r"at least 820 MiB"):
        require_memory("my-model", loads, 3)
    limit(monkeypatch, 3 * BASE + 100)
    require_memory("my-model", loads, 3)


def test_a_tight_limit_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = int(USUAL_BASE * MIB + 110 * MIB + 64 * MIB)
    limit(monkeypatch, usual / MIB - 1)
    with capture_logs() as logs:
        assert require_memory("my-model", PACKED, 1) == pytest.approx(usual)
    (warning,) = logs
    assert (warning["model"], warning["needed"], warning["limit"]) == (
        "my-model",
        "474 MiB",
        "473 MiB",
    )
    limit(monkeypatch, usual / MIB + 1)
    with capture_logs() as logs:
        require_memory("my-model", PACKED, 1)
    assert logs == []


def test_without_a_limit_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, None)
    with capture_logs() as logs:
        require_base("my-model", 1000)
        require_memory("my-model", PACKED, 1000)
    assert logs == []


def test_a_machine_with_swap_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, 100)
    monkeypatch.setattr(memory, "may_swap", lambda: True)
    with capture_logs() as logs:
        require_base("my-model")
        require_memory("my-model", PACKED, 1)
    assert [entry["log_level"] for entry in logs] == ["warning"] * 2


def test_a_smaller_number_type_is_advised_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit(monkeypatch, BASE)
    with pytest.raises(SettingsError, match=r"model\.dtype = bfloat16 or int8"):
        require_memory("m", Loading(WEIGHTS, STORED_HALF, "float32", compares=True, stays=True), 1)
    with pytest.raises(SettingsError) as refused:
        require_memory("m", PACKED, 1)
    assert "dtype" not in str(refused.value)


def test_the_libraries_are_not_imported_if_they_do_not_fit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limit(monkeypatch, BASE - 1)
    with pytest.raises(SettingsError, match="bundled needs at least 240 MiB of memory, without"):
        warm.load(ModelSettings(name="bundled"), None)


def test_a_limit_that_is_tight_without_a_model_is_a_warning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The kernel may kill the process while it imports the libraries."""
    for mib, levels in ((2 * USUAL_BASE - 1, ["warning"]), (2 * USUAL_BASE, [])):
        limit(monkeypatch, mib)
        with capture_logs() as logs:
            require_base("my-model", 2)
        assert [entry["log_level"] for entry in logs] == levels


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_weights_are_counted_in_the_files(dtype: torch.dtype, tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    file = folder / "model.safetensors"
    weights = {name: tensor.to(dtype) for name, tensor in load_file(file).items()}
    number = sum(tensor.numel() for tensor in weights.values())
    save_file(weights | {"position_ids": torch.arange(9)}, file, metadata={"format": "pt"})
    assert stored_weights([file]) == {str(dtype).removeprefix("torch."): number}


def test_shared_weights_are_counted_once() -> None:
    first, second = torch.nn.Linear(3, 5, bias=False), torch.nn.Linear(3, 5, bias=False)
    second.weight = first.weight
    assert weights_of(torch.nn.Sequential(first, second)) == 15
    assert weights_of(None) is None


@pytest.mark.usefixtures("offline")
def test_a_model_that_does_not_fit_is_refused_before_it_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_checkpoint(tmp_path / "large", hidden_size=64)
    limit(monkeypatch, BASE + 1)
    monkeypatch.setattr(loading, "with_weights", lambda *_: pytest.fail("the weights are loaded"))
    settings: dict[str, Any] = {"name": str(folder), "device": "cpu"}
    with pytest.raises(SettingsError, match="large needs at least"):
        loading.load(ModelSettings(**settings, dtype="bfloat16"))


# -- real processes ------------------------------------------------------------------------------


@contextlib.contextmanager
def limited(mib: int) -> Iterator[Path]:
    """Make a group with a memory limit beside the one that this process is in."""
    parents = list(groups("memory")) or [Path("/nowhere")]
    files = {"memory.limit_in_bytes": mib * MIB, "memory.memsw.limit_in_bytes": mib * MIB}
    parent = parents[0]
    if (parent / "cgroup.controllers").exists():
        files = {"memory.max": mib * MIB, "memory.swap.max": 0}
        # Version 2: only a group that shares the controller out can have a limited group in it.
        sharing = (p for p in parents if "memory" in _words(p / "cgroup.subtree_control"))
        parent = next(sharing, Path("/nowhere"))
    group = parent / f"streamlabel-{uuid.uuid4().hex[:8]}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error.strerror}")
    try:
        for file, size in files.items():
            if (group / file).exists():  # a kernel may count no swap
                (group / file).write_text(str(size))
        if may_swap() and not any("sw" in file and (group / file).exists() for file in files):
            pytest.skip("no cgroup can be made here: swap can't be forbidden")
        yield group
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error.strerror}")
    finally:
        group.rmdir()


def _words(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


_JOIN = """
import os, sys
open(sys.argv[1], "w").write(str(os.getpid()))
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


def run(group: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python in a group; its first step is to join."""
    command = [sys.executable, "-S", "-c", _JOIN, str(group / "cgroup.procs"), *arguments]
    environ = os.environ | {"HF_HUB_OFFLINE": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


def test_a_process_that_is_refused_would_have_been_killed(tmp_path: Path) -> None:
    """And one with room enough is not refused."""
    folder = str(make_checkpoint(tmp_path / "model"))
    words = ["-m", "worker", "classify", "--model", folder, "--model-dtype", "float32", "some text"]
    with limited(BASE - 40) as group:
        refused = run(group, *words)
        assert refused.returncode == 2
        assert "model needs at least 240 MiB of memory" in refused.stderr
        assert "the container's or service's limit is 200 MiB" in refused.stderr
        unchecked = run(group, "-c", "import worker.inference.loading")
        assert unchecked.returncode == -signal.SIGKILL
    with limited(2 * USUAL_BASE) as group:
        done = run(group, *words)
        assert (done.returncode, done.stderr) == (0, "")
