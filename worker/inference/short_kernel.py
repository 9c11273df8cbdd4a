"""The Triton kernel for attention within short texts. Importing it fails without Triton.

Owns: the kernel.
Thread: infer, which launches it on a GPU.
Must not import: transformers.
"""
# mypy: ignore-errors
# ruff: noqa: ANN001, ANN201, N803, PLR0913, PLR0917 - Triton reads this as a language of its own

import triton
import triton.language as tl


@triton.jit
def attend_within(
    query,
    key,
    value,
    output,
    query_token,
    query_head,
    key_token,
    key_head,
    value_token,
    value_head,
    output_token,
    output_head,
    ends,
    first,
    scaling,
    REACH: tl.constexpr,
    SIZE: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE: tl.constexpr,
):
    """Attend within one text, for one head. `x_token` and `x_head` are strides."""
    text, head = first + tl.program_id(0), tl.program_id(1)
    start = tl.load(ends + text)
    length = tl.load(ends + text + 1) - start
    tokens, sizes = tl.arange(0, TILE), tl.arange(0, WIDTH)
    inside = (tokens[:, None] < length) & (sizes[None, :] < SIZE)
    rows, columns = (start + tokens).to(tl.int64)[:, None], sizes[None, :]
    q = tl.load(query + rows * query_token + head * query_head + columns, inside, 0.0)
    k = tl.load(key + rows * key_token + head * key_head + columns, inside, 0.0)
    v = tl.load(value + rows * value_token + head * value_head + columns, inside, 0.0)
    attended = tokens[None, :] < length
    if REACH >= 0:
        distance = tokens[:, None] - tokens[None, :]
        attended = attended & (distance <= REACH) & (distance >= -REACH)
    products = tl.where(attended, tl.dot(q, tl.trans(k)) * scaling, -float("inf"))
    weights = tl.exp(products - tl.max(products, 1)[:, None])
    mean = tl.dot(weights.to(v.dtype), v) / tl.sum(weights, 1)[:, None]
    target = output + rows * output_token + head * output_head + columns
    tl.store(target, mean.to(output.dtype.element_ty), inside)
