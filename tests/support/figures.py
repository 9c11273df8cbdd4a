"""Figures of a bench, for tests of plans and tables."""

from __future__ import annotations

from typing import Any

from worker.bench.figures import (
    BenchResult,
    EndToEnd,
    EnginePoint,
    EngineResult,
    Latency,
    Load,
    MachineInfo,
    ModelInfo,
    Roofline,
)


def load(share: float, p99: float | None) -> Load:
    """Return the latencies at a share of 100 texts/s."""
    return Load(share=share, rate=100 * share, records=2000, p50=5.0, p99=p99, p999=None)


def bench(
    p99: tuple[float, float, float] = (10, 20, 100),
    *,
    loads: tuple[Load, ...] | None = None,
    faster: float = 1.0,
    longer: float = 1.0,
    **changes: Any,
) -> BenchResult:
    """Return a result with a capacity of 100 texts/s, and with a second budget.

    Args:
        p99: in ms, at 10, 50 and 90 % load.
        loads: all latencies, instead of `p99`.
        faster: speed of the second budget, relative to the first.
        longer: duration of its window, relative to the first.
        changes: other members to replace.
    """
    shares = (0.1, 0.5, 0.9)
    configured = EnginePoint(
        forward_tokens=1024, window=32, texts_per_s=110, tokens_per_s=2750, window_s=0.3
    )
    other = EnginePoint(
        forward_tokens=2048,
        window=64,
        texts_per_s=110 * faster,
        tokens_per_s=2750 * faster,
        window_s=0.3 * longer,
    )
    roofline = Roofline(
        gemm_flop_per_s=2e12,
        engine_flop_per_s=1e12,
        flop_per_token=85e6,
        share=0.5,
        way="torch.mm",
    )
    measured: dict[str, Any] = {
        "version": "0.1.0",
        "quick": False,
        "delivery": "at_least_once",
        "commit_interval_s": 0.5,
        "texts_from": "tweets",
        "machine": MachineInfo(
            cpu="a processor",
            cores=2,
            features=("avx2",),
            python="3.11.7",
            torch="2.13.0",
            broker="embedded broker",
        ),
        "model": ModelInfo(
            name="a-model",
            engine="torch",
            dtype="float32",
            device="cpu",
            threads=2,
            max_tokens=512,
            tokens_per_text=25.0,
        ),
        "engine": EngineResult(
            texts=512,
            rounds=3,
            configured=configured,
            sweep=(other,) if faster != 1.0 else (),
            pipeline_texts_per_s=40,
            to_pipeline=2.75,
            tokenise_texts_per_s=20_000,
            roofline=roofline,
            one_text_s=0.02,
        ),
        "end_to_end": EndToEnd(
            records=2000, rates=(99, 100, 101), records_per_s=100, to_engine=100 / 110
        ),
        "latency": Latency(
            loads=loads or tuple(map(load, shares, p99)),
            alone_ms=30.0,
            alone_overhead_ms=10.0,
            p99_to_window=None,
        ),
        "cold_start_s": 5.0,
        "resident_bytes": None,
    }
    return BenchResult(**(measured | changes))
