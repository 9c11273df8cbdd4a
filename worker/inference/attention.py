"""Attention within each text of a joined row: on a GPU by one kernel, else by texts of equal length.

Pure functions of tensors, run by the infer thread and its lanes. Must not import transformers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

try:
    from torch.nn.attention import varlen
except ImportError:  # before torch 2.10
    varlen = None  # type: ignore[assignment]
# What the kernel behind `varlen_attn` computes in; it knows no float32.
_VARLEN_TYPES = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class Segments:
    """Where the texts lie in a joined row.

    Attributes:
        lengths: tokens of each text, int64 [texts].
        starts: index of each text's first token, int64 [texts].
        ends: 0, then the index after each text's last token, int32 [texts + 1].
        groups: (start, texts, length) of each run of texts of equal length.
        longest: tokens of the longest text.
        tokens: of all texts.
    """

    lengths: Tensor
    starts: Tensor
    ends: Tensor
    groups: tuple[tuple[int, int, int], ...]
    longest: int
    tokens: int

    @classmethod
    def of(cls, lengths: Sequence[int], device: torch.device | str = "cpu") -> Segments:
        """Segments of texts of these lengths, in this order."""
        ends = [0, *accumulate(lengths)]
        return cls(
            lengths=torch.tensor(lengths, device=device),
            starts=torch.tensor(ends[:-1], device=device),
            ends=torch.tensor(ends, dtype=torch.int32, device=device),
            groups=tuple(_groups(lengths)),
            longest=max(lengths),
            tokens=ends[-1],
        )

    def spread(self, values: Tensor) -> Tensor:
        """A value of each text [texts], at each of its tokens [tokens]."""
        # A GPU that is not told how many there will be is waited for.
        return values.repeat_interleave(self.lengths, output_size=self.tokens)

    def means(self, hidden: Tensor) -> Tensor:
        """The mean over each text's tokens: [tokens, size] to [texts, size]."""
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
    """An attention function as transformers' `AttentionInterface` calls them.

    Args:
        query: [1, heads, tokens, size] of the joined row.
        key: the same shape.
        value: the same shape.
        segments: where the texts lie in it.
        scaling: of the products; default: one over the root of `size`.
        sliding_window: a token looks at those less than this many tokens away, to either side.

    Returns:
        [1, tokens, heads, size], and no weights.
    """
    reach = None if sliding_window is None else sliding_window - 1
    if query.is_cuda and varlen is not None and query.dtype in _VARLEN_TYPES:
        return _in_one(query, key, value, segments, scaling, reach), None
    return _by_length(query, key, value, segments, scaling, reach), None


def _by_length(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    scaling: float | None,
    reach: int | None,
) -> Tensor:
    """One call for each run of texts of equal length: no mask, and nothing is copied on the way in."""
    found = []
    for group in segments.groups:
        attended = scaled_dot_product_attention(
            _texts(query, *group),
            _texts(key, *group),
            _texts(value, *group),
            attn_mask=_band(group[-1], reach, query.device),
            scale=scaling,
        )
        found.append(attended.transpose(1, 2).flatten(0, 1))
    return torch.cat(found)[None]


def _texts(part: Tensor, start: int, texts: int, length: int) -> Tensor:
    """A view of texts of equal length, [texts, heads, length, size]."""
    _, heads, _, size = part.shape
    run = part[0, :, start : start + texts * length]
    return run.reshape(heads, texts, length, size).transpose(0, 1)


def _band(length: int, reach: int | None, device: torch.device) -> Tensor | None:
    """Who looks at whom, bool [length, length]; None where everyone looks at everyone."""
    if reach is None or length <= reach + 1:
        return None
    places = torch.arange(length, device=device)
    return (places[:, None] - places).abs() <= reach


def _in_one(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    segments: Segments,
    scaling: float | None,
    reach: int | None,
) -> Tensor:
    """One call for all texts, by the kernel for sequences of various lengths."""
    rows = [part[0].transpose(0, 1) for part in (query, key, value)]
    # A pair of tensors only where more is asked for, which the types don't tell.
    attended: Any = varlen.varlen_attn(
        rows[0],
        rows[1],
        rows[2],
        cu_seq_q=segments.ends,
        cu_seq_k=segments.ends,
        max_q=segments.longest,
        max_k=segments.longest,
        scale=scaling,
        window_size=(-1, -1) if reach is None else (reach, reach),
    )
    one_row: Tensor = attended[None]
    return one_row
