"""The table that `streamlabel bench` prints.

Owns: its rows and their wording; pure.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from worker.bench.figures import BenchResult, DtypeResult, EnginePoint, Load, Roofline
from worker.core.counted import counted
from worker.core.visible import visible

Row = tuple[str, str, str]  # measurement, figure, remark


def result_table(bench: BenchResult) -> Table:
    """Return every figure with its unit and its comparison."""
    table = Table(box=None, pad_edge=False, caption=caption(bench), caption_justify="left")
    table.add_column("measurement")
    table.add_column("figure", justify="right")
    table.add_column("")
    for row in (*_engine(bench), *_worker(bench), *_latency(bench)):
        table.add_row(*row)
    return table


def caption(bench: BenchResult) -> str:
    """Describe the machine, the model and the texts of a run."""
    machine, model = bench.machine, bench.model
    features = ", ".join(machine.features) or "no matrix extensions"
    return (
        f"{machine.cpu}, {counted(machine.cores, 'core')} ({features}); torch {machine.torch}; "
        f"{visible(model.name)}, {model.engine} engine, {model.dtype} on {model.device}, "
        f"{counted(model.threads, 'thread')}; texts: {bench.texts_from}, "
        f"{model.tokens_per_text:.1f} tokens on average; {bench.delivery.replace('_', ' ')}; "
        f"{_broker(bench)}" + ("; quick run: one round, few texts" if bench.quick else "")
    )


def _broker(bench: BenchResult) -> str:
    """Name the broker, and say whether it and the clients take cores from the worker."""
    number, broker = bench.end_to_end.client_cores, bench.machine.broker
    if number:
        return f"{broker}; broker and clients on {counted(number, 'core')} of their own"
    return f"{broker}; broker and clients share the worker's cores"


def _engine(bench: BenchResult) -> Iterator[Row]:
    engine = bench.engine
    yield _point("engine alone", engine.configured)
    for point in engine.sweep:
        yield _point("  at another token budget", point)
    yield (
        "pipeline(), float32, batches of 32",
        _rate(engine.pipeline_texts_per_s),
        "in arrival order",
    )
    yield "engine / pipeline()", f"{engine.to_pipeline:.2f}", "same texts, in turns"
    for other in engine.dtypes:
        yield from _other_dtype(other, engine.configured)
    yield "tokeniser alone", _rate(engine.tokenise_texts_per_s), "runs in parallel to the model"
    if roof := engine.roofline:
        yield (
            "engine / matrix products",
            f"{roof.share:.2f}",
            _speeds(roof),
        )
    else:
        yield "engine / matrix products", "-", f"torch has no products in {bench.model.dtype}"

    if made := engine.primitives:
        yield (
            "oneDNN primitives made",
            f"{made.later:.0f} in 1,000 texts",
            f"after {engine.rounds * engine.texts} texts; {made.first:.0f} in 1,000 at first",
        )


def _other_dtype(other: DtypeResult, configured: EnginePoint) -> Iterator[Row]:
    name = f"  in {other.dtype}"
    if other.point:
        ratio = other.point.texts_per_s / configured.texts_per_s
        cpu = _cpu(other.point.cpu_us_per_text)
        yield name, _rate(other.point.texts_per_s), f"{ratio:.2f} x the settings'; {cpu} a text"
    else:
        yield name, "-", visible(other.refused or "")


def _worker(bench: BenchResult) -> Iterator[Row]:
    drained = bench.end_to_end
    spread = f"{drained.records} records; {min(drained.rates):.1f} to {max(drained.rates):.1f}"
    yield "end to end, one worker", f"{drained.records_per_s:.1f} records/s", spread
    yield "end to end / engine", f"{drained.to_engine:.2f}", "measured in turns"
    if cpu := drained.cpu:
        yield "CPU time of the worker", f"{_cpu(cpu.worker)} a record", ""
        if cpu.worker_to_engine:
            ratio = f"{cpu.worker_to_engine:.2f}"
            yield "  / CPU time of the engine", ratio, "a record : a text, measured in turns"
        yield "CPU time of the broker", f"{_cpu(cpu.broker)} a record", ""
        yield "CPU time of the reader", f"{_cpu(cpu.clients)} a record", ""
    yield "cold start to ready", f"{bench.cold_start_s:.1f} s", "model cached"
    if bench.resident_bytes:
        yield "memory of the worker", f"{bench.resident_bytes / 2**20:.0f} MiB", "resident"


def _latency(bench: BenchResult) -> Iterator[Row]:
    for load in bench.latency.loads:
        yield (
            f"latency at {load.share:.0%} load",
            f"p50 {_ms(load.p50)}",
            f"p99 {_ms(load.p99)}, p99.9 {_ms(load.p999)}; {_arrivals(load)}",
        )
    point, dtype = bench.engine.configured, bench.model.dtype
    remark = f"{point.window} texts (batch.max_records), engine alone in {dtype}"
    yield "one full window", _ms(point.window_s * 1000), remark
    if bench.latency.p99_to_window is not None:
        yield "p99 at 50% load / one full window", f"{bench.latency.p99_to_window:.2f}", dtype
    forward_ms = bench.engine.one_text_s * 1000
    yield "one text, idle worker", _ms(bench.latency.alone_ms), f"forward pass: {_ms(forward_ms)}"
    yield "  without the forward pass", _ms(bench.latency.alone_overhead_ms), ""


def _point(name: str, point: EnginePoint) -> Row:
    remark = f"{point.tokens_per_s:.0f} tokens/s; {point.forward_tokens} tokens a pass"
    if point.cpu_us_per_text:
        remark = f"{_cpu(point.cpu_us_per_text)} of CPU a text, {remark}"
    return name, _rate(point.texts_per_s), f"{remark}, {point.window} texts a window"


def _arrivals(load: Load) -> str:
    return f"{load.records} texts at {load.rate:.1f}/s, counted from each due time"


def _speeds(roof: Roofline) -> str:
    engine, gemm = roof.engine_flop_per_s / 1e9, roof.gemm_flop_per_s / 1e9
    token = f"{roof.flop_per_token / 1e6:.1f} MFLOP a token"
    return f"{engine:.1f} of {gemm:.1f} GFLOP/s ({roof.way}); {token}"


def _rate(rate: float) -> str:
    return f"{rate:.1f} texts/s"


def _cpu(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} us"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f} ms"
