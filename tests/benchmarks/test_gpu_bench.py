"""The GPU benchmark runs in tiny sizes without a GPU."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.gpu.sizes import TINY


@pytest.mark.timeout(600)
def test_every_part_runs_without_a_gpu() -> None:
    """A dry run finds errors before they cost GPU time."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run"]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    figures = json.loads(process.stdout.splitlines()[-1])
    points = figures["engine"]["points"]
    assert {point["model"] for point in points} == {"DistilBERT", "BERT-base", "RoBERTa-base"}
    assert len(points) == 3 * len(TINY.dtypes) * len(TINY.text_tokens) * len(TINY.passes)
    assert all(point["texts_per_s"] > 0 for point in [*points, *figures["variants"]])
    assert [step["threads"] for step in figures["tokeniser"]] == list(TINY.threads)
    assert [step["workers"] for step in figures["end_to_end"]] == list(TINY.workers)
    for step in figures["end_to_end"]:
        assert step["records_per_s"] > 0
        assert step["worker_cpu_share"] > 0
        assert step["stages_busy"]["infer"] > 0


def test_a_machine_without_a_gpu_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--only", "engine"]
    process = subprocess.run(
        command, check=False, capture_output=True, text=True, env={"CUDA_VISIBLE_DEVICES": ""}
    )
    assert process.returncode == 2
    assert "torch finds no GPU" in process.stderr
