"""Measures the worker's forward pass by architecture, number type and size, and the GPU's peak.

Passes are timed as the infer thread runs them: from ids in Python lists to probabilities on the
CPU, with new texts each time, and each begun before the one before it is finished. FLOP are counted
as in `worker.bench.baselines`.

Owns: the models and the timed passes.
Thread: main.
"""

from __future__ import annotations

import random
import statistics
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from transformers import AutoModelForSequenceClassification

from benchmarks.gpu.sizes import Sizes
from worker.bench.baselines import Arithmetic, arithmetic_of
from worker.clock import SystemClock
from worker.inference.classifier import Forward, begin_scores, scores
from worker.inference.packing import PackedForward
from worker.inference.padding import PaddedForward

Rows = list[list[int]]

_CONFIGS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "DistilBERT": ("DistilBertConfig", {}),
    "BERT-base": ("BertConfig", {}),
    "RoBERTa-base": (
        "RobertaConfig",
        {"vocab_size": 50_265, "max_position_embeddings": 514, "type_vocab_size": 1},
    ),
}
_LOWEST_ID, _HIGHEST_ID = 1_000, 30_000  # word ids in all three vocabularies
_WARM_UP: Final = 3
_PEAK_PRODUCTS: Final = 10
_TERA: Final = 1e12

clock = SystemClock()


def measure(sizes: Sizes, _folder: Path) -> dict[str, Any]:
    """Measure every architecture, number type, text length and pass size, and the GPU's peak."""
    peaks = {dtype: _peak(sizes, dtype) for dtype in sizes.dtypes}
    points = [
        {"model": name, "dtype": dtype} | point
        for name in _CONFIGS
        for dtype in sizes.dtypes
        for point in _points(sizes, name, dtype, peaks[dtype])
    ]
    return {"peak_tflop_per_s": {k: v / _TERA for k, v in peaks.items()}, "points": points}


def variants(sizes: Sizes, _folder: Path) -> list[dict[str, Any]]:
    """Measure other implementations of DistilBERT's pass in the same run."""
    dtype, points = sizes.dtypes[0], list[dict[str, Any]]()
    for way, build in _WAYS.items():
        model = _model(sizes, "DistilBERT", dtype)
        arithmetic, forward = arithmetic_of(model), build(model)
        for tokens in sizes.passes:
            point = _point(forward, arithmetic, sizes, tokens, sizes.text_tokens[0])
            points.append({"way": way, "dtype": dtype} | point)
    return points


def _padded(model: Any) -> Forward:
    return PaddedForward(model, 0)


def _compiled(model: Any) -> Forward:
    """Compile each layer with torch.compile, for any number of tokens."""
    forward = PackedForward(model)
    for layer in model.base_model.transformer.layer:
        layer.compile(dynamic=True)
    return forward


_WAYS: Final[dict[str, Callable[[Any], Forward]]] = {
    "packed": PackedForward,
    "padded": _padded,
    "packed, layers compiled": _compiled,
}


def _points(sizes: Sizes, name: str, dtype: str, peak: float) -> Iterator[dict[str, Any]]:
    model = _model(sizes, name, dtype)
    arithmetic = arithmetic_of(model)
    forward = PackedForward(model)
    for text_tokens in sizes.text_tokens:
        for tokens in sizes.passes:
            point = _point(forward, arithmetic, sizes, tokens, text_tokens)
            yield point | {"share_of_peak": point["tflop_per_s"] * _TERA / peak}


def _point(
    forward: Forward, arithmetic: Arithmetic, sizes: Sizes, tokens: int, text_tokens: int
) -> dict[str, Any]:
    generator = random.Random(tokens)
    passes = [_rows(generator, tokens, text_tokens) for _ in range(_WARM_UP + sizes.rounds)]
    for rows in passes[:_WARM_UP]:
        _scored(forward, rows)
    seconds, pass_seconds = _back_to_back(forward, passes[_WARM_UP:]), list[float]()
    for rows in passes[_WARM_UP:]:
        started = clock.monotonic()
        _scored(forward, rows)
        pass_seconds.append(clock.monotonic() - started)
    texts = sum(map(len, passes[_WARM_UP:]))
    flop = sum(arithmetic.flop(len(row)) for rows in passes[_WARM_UP:] for row in rows)
    return {
        "text_tokens": text_tokens,
        "pass_tokens": tokens,
        "texts_per_s": texts / seconds,
        "pass_ms": statistics.median(pass_seconds) * 1000,
        "tflop_per_s": flop / seconds / _TERA,
        "device_ms": _device_ms(forward, passes[-1], sizes),
    }


def _back_to_back(forward: Forward, passes: Sequence[Rows]) -> float:
    """Return the seconds of all passes, of which two are under way at once."""
    started, waiting = clock.monotonic(), deque[Callable[[], torch.Tensor]]()
    for rows in passes:
        waiting.append(begin_scores(forward, rows, "softmax"))
        if len(waiting) > 1:
            waiting.popleft()()
    for wait in waiting:
        wait()
    return clock.monotonic() - started


def _scored(forward: Forward, rows: Rows) -> None:
    scores(forward, rows, "softmax")


def _device_ms(forward: Forward, rows: Rows, sizes: Sizes) -> float | None:
    """Return the milliseconds of a pass with the next one queued, or None without a GPU."""
    if sizes.device != "cuda":
        return None
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    with torch.inference_mode():
        forward(rows)
        begin.record()
        for _ in range(sizes.rounds):
            forward(rows)
        end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / sizes.rounds


def _rows(generator: random.Random, tokens: int, mean: int) -> Rows:
    """Return texts of random words that fill a pass, longest first, as the tokeniser does."""
    lengths, left = list[int](), tokens
    while left > 0:
        lengths.append(min(left, generator.randint(mean // 2, mean + mean // 2)))
        left -= lengths[-1]
    lengths.sort(reverse=True)
    return [[generator.randint(_LOWEST_ID, _HIGHEST_ID) for _ in range(size)] for size in lengths]


def _model(sizes: Sizes, name: str, dtype: str) -> Any:
    config_class, options = _CONFIGS[name]
    config: Any = getattr(transformers, config_class)(**options | sizes.shape)
    torch.manual_seed(0)
    with torch.device(sizes.device):
        model = AutoModelForSequenceClassification.from_config(config)
    return model.to(getattr(torch, dtype)).eval()


def _peak(sizes: Sizes, dtype: str) -> float:
    """Return the best FLOP/s of several large square matrix products."""
    side = sizes.square
    a, b = (torch.randn(side, side, device=sizes.device).to(getattr(torch, dtype)) for _ in "ab")
    seconds: Sequence[float] = [_product_s(a, b, sizes) for _ in range(_PEAK_PRODUCTS)]
    return 2 * side**3 / min(seconds)


def _product_s(a: torch.Tensor, b: torch.Tensor, sizes: Sizes) -> float:
    started = clock.monotonic()
    with torch.inference_mode():
        a @ b
    if sizes.device == "cuda":
        torch.cuda.synchronize()
    return clock.monotonic() - started
