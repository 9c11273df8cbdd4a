"""Attention within short texts on a GPU, by a Triton kernel.

The kernel behind torch's `varlen_attn` computes tiles of 128 tokens, so that five sixths of its
work on texts of 22 tokens is padding. Here each text and head has a program of its own, with a tile
that is just large enough for the text. A pass of 65,536 tokens takes 0.12 ms a layer instead of
0.82 on an H200.

Owns: the launch of the kernel, and the choice of a tile for each text.
Thread: infer.
Must not import: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from torch import Tensor

kernel: Any
try:
    from worker.inference.short_kernel import attend_within as kernel
except ImportError:  # Triton comes with torch's builds for GPUs only.
    kernel = None

# Tokens of a tile, largest first, and the warps that compute it. Triton needs at least 16 tokens;
# from 128 tokens on, torch's kernel is faster.
_WARPS = {128: 8, 64: 4, 32: 2, 16: 1}
# A separate launch for fewer texts than these costs the CPU more time than a better tile saves.
_FEWEST = 256


class QueryKeyValue(NamedTuple):
    """Query, key and value of a row of texts, each [tokens, heads, size]."""

    query: Tensor
    key: Tensor
    value: Tensor


class Run(NamedTuple):
    """Consecutive texts whose attention is computed in tiles of one size.

    Attributes:
        first: index of the first text.
        texts: number of texts.
        tokens: of these texts.
        tile: tokens of a tile; 0 if torch's kernel computes these texts.
    """

    first: int
    texts: int
    tokens: int
    tile: int


def runs(lengths: Sequence[int]) -> tuple[Run, ...]:
    """Return the runs of texts of these lengths, in order; few if the longest texts come first.

    Only the first run can have tile 0.
    """
    bounds = tuple(_bounds(lengths)) if kernel else ((len(lengths), 0),)
    firsts = (0, *(end for end, _ in bounds[:-1]))
    return tuple(
        Run(first, end - first, sum(lengths[first:end]), tile)
        for first, (end, tile) in zip(firsts, bounds, strict=True)
    )


def _bounds(lengths: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the end and the tile of each run."""
    texts, first, tile = len(lengths), 0, 0
    for smaller in _WARPS:
        too_long = (n for n in range(texts - 1, first - 1, -1) if lengths[n] > smaller)
        end = next(too_long, first - 1) + 1
        if first < end:
            if texts - end < _FEWEST:
                break
            yield end, tile
            first = end
        tile = smaller
    if first < texts:
        yield texts, tile


def attend(
    row: QueryKeyValue,
    output: Tensor,
    ends: Tensor,
    run: Run,
    scaling: float,
    reach: int | None,
) -> None:
    """Attend within each text of a run.

    Args:
        row: of all texts; the values of a head are consecutive.
        output: [tokens, heads, size]; receives the result at the tokens of the run.
        ends: 0, then the index after each text's last token, int32 [texts + 1].
        run: the texts; its tile is not 0.
        scaling: factor of the products.
        reach: a token attends to tokens at most this far away; None for no limit.
    """
    _, heads, size = output.shape
    parts = (*row, output)
    kernel[(run.texts, heads)](
        *parts,
        *(stride for part in parts for stride in part.stride()[:2]),
        ends,
        run.first,
        scaling,
        REACH=-1 if reach is None else reach,
        SIZE=size,
        WIDTH=max(16, 1 << (size - 1).bit_length()),
        TILE=run.tile,
        num_warps=_WARPS[run.tile],
    )
