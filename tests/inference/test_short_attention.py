"""Short texts on a GPU: every text gets a tile that it fits, and the kernel attends within it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import accumulate, pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.inference import short_attention
from worker.inference.attention import Segments
from worker.inference.short_attention import QueryKeyValue, Run, runs

LENGTHS = st.lists(st.integers(1, 40) | st.integers(1, 300), min_size=1, max_size=40) | st.integers(
    1, 2000
).map(lambda texts: [n % 150 + 1 for n in range(texts)])


@pytest.fixture
def _triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let tiles be chosen without Triton, which the choice does not call."""
    monkeypatch.setattr(short_attention, "kernel", object())


def tile_of(lengths: Sequence[int]) -> list[tuple[int, int]]:
    return [(run.texts, run.tile) for run in runs(lengths)]


@given(lengths=LENGTHS)
def test_runs_cover_all_texts_in_tiles_that_they_fit(lengths: list[int]) -> None:
    """Texts in any order are computed exactly once, by a kernel that is right for their length."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(short_attention, "kernel", object())
        found = runs(lengths)
    assert [run.first for run in found] == [0, *accumulate(run.texts for run in found)][:-1]
    assert sum(run.texts for run in found) == len(lengths)
    for number, run in enumerate(found):
        texts = lengths[run.first : run.first + run.texts]
        assert run.tokens == sum(texts)
        assert max(texts) <= run.tile if run.tile else number == 0


@pytest.mark.usefixtures("_triton")
def test_sorted_texts_have_a_run_for_each_tile() -> None:
    """Each text has the smallest tile, if enough texts share it."""
    lengths = [200] * 300 + [100] * 300 + [40] * 300 + [20] * 300 + [10] * 300
    assert tile_of(lengths) == [(300, 0), (300, 128), (300, 64), (300, 32), (300, 16)]
    assert tile_of([40, *[20] * 300, 10]) == [(1, 64), (301, 32)]


@pytest.mark.usefixtures("_triton")
def test_few_texts_share_one_launch() -> None:
    """A launch of its own would cost more than a smaller tile saves."""
    assert tile_of([60, 20, 10]) == [(3, 64)]
    assert tile_of([10]) == [(1, 16)]
    assert tile_of([200, *[20] * 10]) == [(11, 0)]


def test_torch_computes_everything_without_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton is no dependency: its absence only makes short texts slower."""
    monkeypatch.setattr(short_attention, "kernel", None)
    assert runs([40, 10]) == (Run(0, 2, 50, 0),)


def test_the_kernel_attends_within_each_text() -> None:
    """Runs this module as a program in Triton's interpreter, which needs no GPU."""
    if short_attention.kernel is None:
        pytest.skip("Triton is not installed")
    environ = {**os.environ, "TRITON_INTERPRET": "1"}
    subprocess.run([sys.executable, "-P", __file__], env=environ, check=True)


def _check(lengths: Sequence[int], size: int, reach: int | None) -> None:
    tokens, heads = sum(lengths), 3
    query, key, value = (torch.randn(tokens, heads, size) for _ in range(3))
    output = torch.full((tokens, heads, size), torch.nan)
    for run in runs(lengths):
        ends = Segments.of(lengths).ends
        row = QueryKeyValue(query, key, value)
        short_attention.attend(row, output, ends, run, size**-0.5, reach)
    bounds = [0, *accumulate(lengths)]
    for start, end in pairwise(bounds):
        positions = torch.arange(end - start)
        near = (positions[:, None] - positions).abs() <= (reach if reach is not None else tokens)
        q, k, v = (part[start:end].transpose(0, 1) for part in (query, key, value))
        weights = (q @ k.transpose(1, 2) * size**-0.5).masked_fill(~near, -torch.inf).softmax(-1)
        torch.testing.assert_close(output[start:end], (weights @ v).transpose(0, 1))


if __name__ == "__main__":
    torch.manual_seed(0)
    for size in (64, 24):
        for reach in (None, 5):
            _check([60, 33, 17, 16, 1, 5], size, reach)
            _check([3, 40, 128], size, reach)
