"""The bench of a GPU, in the sizes that need none."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from benchmarks.gpu.sizes import TINY


@pytest.mark.timeout(600)
def test_all_of_it_runs_without_a_gpu() -> None:
    """Minutes on a GPU are rare: no part may fail there for a reason that shows here."""
    command = [sys.executable, "-m", "benchmarks.gpu", "--dry-run"]
    told = subprocess.run(command, check=True, capture_output=True, text=True)
    found = json.loads(told.stdout.splitlines()[-1])
    points = found["engine"]["points"]
    assert {point["model"] for point in points} == {"DistilBERT", "BERT-base", "RoBERTa-base"}
    assert len(points) == 3 * len(TINY.dtypes) * len(TINY.text_tokens) * len(TINY.passes)
    assert all(point["texts_per_s"] > 0 for point in [*points, *found["variants"]])
    assert [step["threads"] for step in found["tokeniser"]] == list(TINY.threads)
    assert [step["workers"] for step in found["end_to_end"]] == list(TINY.workers)
    assert all(step["records_per_s"] > 0 for step in found["end_to_end"])


def test_a_machine_without_a_gpu_is_told_so() -> None:
    command = [sys.executable, "-m", "benchmarks.gpu", "--only", "engine"]
    told = subprocess.run(
        command, check=False, capture_output=True, text=True, env={"CUDA_VISIBLE_DEVICES": ""}
    )
    assert told.returncode == 2
    assert "torch finds no GPU here" in told.stderr
