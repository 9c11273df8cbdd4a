"""Attention within each text of a joined row: by length of the texts, on a CPU and on a GPU.

Owns: nothing; pure functions of tensors.
Thread: infer, and its lanes.
Must not import: transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from worker.inference import short_attention
from worker.inference.placement import to_device
from worker.inference.short_attention import QueryKeyValue

try:
    from torch.nn.attention import varlen
except ImportError:  # before torch 2.10
    varlen = None  # type: ignore[assignment]
# The number types of the kernel behind `varlen_attn`; it has no float32.
_VARLEN_TYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Segments:
    """The bounds of the texts in a joined row.

    Attributes:
        lengths: tokens of each text, int64 [texts].
        starts: index of each text's first token, int64 [texts].
        ends: 0, then the index after each text's last token, int32 [texts + 1].
        groups: (start, texts, length) of each run of texts of equal length.
        tiles: runs of texts for the kernels of a GPU; empty on a CPU.
        longest: tokens of the longest text.
        tokens: of all texts.
    """

    lengths: Tensor
    starts: Tensor
    ends: Tensor
    groups: tuple[tuple[int, int, int], ...]
    tiles: tuple[short_attention.Run, ...]
    longest: int
    tokens: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Segments:
        """Return the segments of texts of these lengths, in this order."""
        ends = [0, *accumulate(lengths)]
        return cls(
            lengths=to_device(torch.tensor(lengths), device),
            starts=to_device(torch.tensor(ends[:-1]), device),
            ends=to_device(torch.tensor(ends, dtype=torch.int32), device),
            groups=tuple(_groups(lengths)),
            tiles=short_attention.runs(lengths) if torch.device(device).type == "cuda" else (),
            longest=max(lengths),
            tokens=ends[-1],
        )

    def spread(self, values: Tensor) -> Tensor:
        """Repeat each text's value [texts] at each of its tokens [tokens]."""
        # Without the size of the result, the CPU would have to wait for the GPU to compute it.
        return values.repeat_interleave(self.lengths, output_size=self.tokens)

    def means(self, hidden: Tensor) -> Tensor:
        """Return the mean over each text's tokens: [tokens, size] to [texts, size]."""
        means = [
            hidden[start : start + texts * length].view(texts, length, -1).mean(1)
            for start, texts, length in self.groups
        ]
        return torch.cat(means)


def _groups(lengths: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    start = 0
    for length, run in groupby(lengths):
        texts = len(list(run))
        yield start, texts, length
        start += texts * length


def within_texts(
    _module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    _attention_mask: Tensor | None,
    *,
    segments: Segments,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **_: object,
) -> tuple[Tensor, None]:
    """Attend within each text, with the signature of transformers' `AttentionInterface`.

    Args:
        query: [1, heads, tokens, size] of the joined row.
        key: the same shape.
        value: the same shape.
        segments: bounds of the texts in the row.
        scaling: factor of the products; default: one over the square root of `size`.
        sliding_window: a token attends to tokens less than this many away, on either side.

    Returns:
        [1, tokens, heads, size], and None for the weights.
    """
    query, key, value = (part[0].transpose(0, 1) for part in (query, key, value))
    reach = None if sliding_window is None else sliding_window - 1
    return attend(query, key, value, segments=segments, scaling=scaling, reach=reach)[None], None


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    segments: Segments,
    scaling: float | None = None,
    reach: int | None = None,
) -> Tensor:
    """Attend within each text.

    Args:
        query: [tokens, heads, size] of the joined row; may be a view.
        key: the same shape.
        value: the same shape.
        segments: bounds of the texts in the row.
        scaling: factor of the products; default: one over the square root of `size`.
        reach: a token attends to tokens at most this many away, on either side; None: to all.

    Returns:
        [tokens, heads, size].
    """
    if query.is_cuda and varlen is not None and query.dtype in _VARLEN_TYPES:
        return _by_tile(QueryKeyValue(query, key, value), segments, scaling, reach)
    return _by_length(query, key, value, segments, scaling, reach)


def _by_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    scaling: float | None,
    reach: int | None,
) -> Tensor:
    """Call the kernel once for each run of texts of equal length, without masks or copies."""
    outputs = []
    for group in segments.groups:
        attended = scaled_dot_product_attention(
            _texts(query, *group),
            _texts(key, *group),
            _texts(value, *group),
            attn_mask=_band(group[-1], reach, query.device),
            scale=scaling,
        )
        outputs.append(attended.transpose(1, 2).flatten(0, 1))
    return outputs[0] if len(outputs) == 1 else torch.cat(outputs)


def _texts(part: Tensor, start: int, texts: int, length: int) -> Tensor:
    """Return a view of texts of equal length, [texts, heads, length, size]."""
    run = part[start : start + texts * length]
    return run.reshape(texts, length, *part.shape[1:]).transpose(1, 2)


def _band(length: int, reach: int | None, device: torch.device) -> Tensor | None:
    """Return the mask of a sliding window, bool [length, length], or None if it is not needed."""
    if reach is None or length <= reach + 1:
        return None
    positions = torch.arange(length, device=device)
    return (positions[:, None] - positions).abs() <= reach


def _by_tile(
    row: QueryKeyValue, segments: Segments, scaling: float | None, reach: int | None
) -> Tensor:
    """Call the kernel for short texts, and torch's for the others."""
    if segments.tiles[0].tile == 0 and len(segments.tiles) == 1:
        return _varlen(row, segments.ends, segments.longest, scaling, reach)
    output = torch.empty_like(row.query, memory_format=torch.contiguous_format)
    factor = row.query.shape[-1] ** -0.5 if scaling is None else scaling
    for run in segments.tiles:
        if run.tile:
            short_attention.attend(row, output, segments.ends, run, factor, reach)
        else:  # always the first run
            ends = segments.ends[: run.texts + 1]
            long = QueryKeyValue(*(part[: run.tokens] for part in row))
            output[: run.tokens] = _varlen(long, ends, segments.longest, scaling, reach)
    return output


def _varlen(
    row: QueryKeyValue,
    ends: Tensor,
    longest: int,
    scaling: float | None,
    reach: int | None,
) -> Tensor:
    """Call the kernel for sequences of various lengths once, for all texts."""
    # Typed Any: the stubs declare a tuple too, which is returned only with further options.
    attended: Any = varlen.varlen_attn(
        row.query,
        row.key,
        row.value,
        cu_seq_q=ends,
        cu_seq_k=ends,
        max_q=longest,
        max_k=longest,
        scale=scaling,
        window_size=(-1, -1) if reach is None else (reach, reach),
    )
    result: Tensor = attended
    return result
