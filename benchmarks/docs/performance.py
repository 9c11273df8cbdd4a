"""The tables of docs/performance.md, one column for each machine.

Owns: their rows, and the description of each measurement.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

from benchmarks.docs.markdown import table
from benchmarks.engines import table as engines
from benchmarks.goals import CPU_GOALS, GPU_GOALS, measured, rows
from benchmarks.machines import Machine, machines
from benchmarks.recorded import RESULTS, Formats, Peers, ScaleOut, Variants
from worker.bench.figures import BenchResult
from worker.bench.table import caption
from worker.core.counted import counted

_NONE = "-"


def page(results: Path = RESULTS) -> str:
    """Return all tables with their captions; empty without results."""
    known = machines(results)
    parts = (_goals(known), _engines(known), _figures(known), _comparisons(known), captions(known))
    return "\n\n".join(chain(*parts))


def head(machine: Machine, known: Sequence[Machine]) -> str:
    """Return a column's head: the machine and the date; it says if the code has changed since."""
    newest = max(other.date for other in known)
    date = f"; {machine.date}" if machine.date else ""
    return machine.title + date + ("; older code" if machine.date < newest else "")


def _goals(known: Sequence[Machine]) -> Iterator[str]:
    for goals in (CPU_GOALS, GPU_GOALS):
        if columns := measured(goals, known):
            heads = [head(machine, known) for machine in columns]
            yield table(("Measurement", "Goal", *heads), rows(goals, columns))


def _engines(known: Sequence[Machine]) -> Iterator[str]:
    """Yield the comparisons with other engines, with goals of their own."""
    for machine in known:
        if machine.engines:
            yield f"Engines on {head(machine, known)}:"
            yield engines.markdown(machine.engines)


# -- figures of the benches ----------------------------------------------------------------------


def _figures(known: Sequence[Machine]) -> Iterator[str]:
    """Yield the table of all benches: a column for each machine, model and number type."""
    columns = [(machine, bench) for machine in known for bench in machine.benches]
    if not columns:
        return
    heads = [
        f"{head(machine, known)}; {bench.model.name}, {bench.model.dtype}"
        for machine, bench in columns
    ]
    benches = [bench for _, bench in columns]
    dtypes = dict.fromkeys(other.dtype for bench in benches for other in bench.engine.dtypes)
    body = [(name, *map(cell, benches)) for name, cell in _ROWS.items()]
    body += [
        (f"engine in {dtype}, texts/s", *(_in_dtype(bench, dtype) for bench in benches))
        for dtype in dtypes
    ]
    yield table(("Figure", *heads), body)


def _in_dtype(bench: BenchResult, dtype: str) -> str:
    if bench.model.dtype == dtype:
        return _number(bench.engine.configured.texts_per_s)
    found = [other.point for other in bench.engine.dtypes if other.dtype == dtype]
    return _number(found[0].texts_per_s) if found and found[0] else _NONE


def _cpu(name: str) -> Callable[[BenchResult], str]:
    def cell(bench: BenchResult) -> str:
        cpu = bench.end_to_end.cpu
        return _number(getattr(cpu, name), 0) if cpu else _NONE

    return cell


def _made(bench: BenchResult) -> str:
    made = bench.engine.primitives
    return f"{made.first:.0f}, later {made.later:.0f}" if made else _NONE


def _half_load(bench: BenchResult) -> str:
    load = next((load for load in bench.latency.loads if load.share == 0.5), None)
    return f"{_number(load.p50, 0)} / {_number(load.p99, 0)}" if load else _NONE


def _products(bench: BenchResult) -> str:
    roof = bench.engine.roofline
    return f"{roof.share:.2f} of {roof.gemm_flop_per_s / 1e9:,.0f}" if roof else _NONE


def _number(value: float | None, digits: int = 1) -> str:
    return _NONE if value is None else f"{value:,.{digits}f}"


_ROWS: dict[str, Callable[[BenchResult], str]] = {
    "engine, texts/s": lambda bench: _number(bench.engine.configured.texts_per_s),
    "engine, CPU us a text": lambda b: _number(b.engine.configured.cpu_us_per_text, 0),
    "`pipeline()`, texts/s": lambda bench: _number(bench.engine.pipeline_texts_per_s),
    "engine, share of matrix products, GFLOP/s": _products,
    "oneDNN primitives made in 1,000 texts": _made,
    "end to end, records/s": lambda bench: _number(bench.end_to_end.records_per_s),
    "worker, CPU us a record": _cpu("worker"),
    "broker, CPU us a record": _cpu("broker"),
    "reader, CPU us a record": _cpu("clients"),
    "p50 / p99 at 50 % load, ms": _half_load,
    "one full window in the engine, ms": lambda b: _number(b.engine.configured.window_s * 1000, 0),
    "single text, ms": lambda bench: _number(bench.latency.alone_ms),
    "cold start, s": lambda bench: _number(bench.cold_start_s),
    "memory of the worker, MiB": lambda b: _number((b.resident_bytes or 0) / 2**20 or None, 0),
}


# -- comparisons ---------------------------------------------------------------------------------


def _comparisons(known: Sequence[Machine]) -> Iterator[str]:
    peers = {head(machine, known): machine.peers for machine in known if machine.peers}
    if peers:
        names = dict.fromkeys(peer.title for result in peers.values() for peer in result.peers)
        body = [(name, *(_peer(result, name) for result in peers.values())) for name in names]
        yield table(("End to end, records/s (speed of streamlabel)", *peers), body)
    variants = {head(machine, known): machine.variants for machine in known if machine.variants}
    if variants:
        settings = dict.fromkeys(
            (variant.question, variant.name)
            for result in variants.values()
            for variant in result.variants
        )
        body = [(*one, *(_variant(r, one) for r in variants.values())) for one in settings]
        columns = ("Comparison", "Setting, records/s (relative to the first)", *variants)
        yield table(columns, body)
    formats = {head(machine, known): machine.formats for machine in known if machine.formats}
    if formats:
        names = dict.fromkeys(cost.name for result in formats.values() for cost in result.formats)
        body = [(name, *(_format(result, name) for result in formats.values())) for name in names]
        yield table(("Decode + encode, CPU us a record (relative to JSON)", *formats), body)


def _peer(peers: Peers, title: str) -> str:
    for peer, ratio in peers.ratios():
        if peer.title == title:
            if not peer.records_per_s:
                return peer.failed or _NONE
            return f"{peer.records_per_s:.1f}" + (f" ({ratio:.2f} x)" if ratio else "")
    return _NONE


def _variant(variants: Variants, setting: tuple[str, str]) -> str:
    for one in variants.variants:
        if (one.question, one.name) == setting:
            sizes = f", {one.memory_mib:.0f} MiB" if one.memory_mib else ""
            start = f", cold start {one.cold_start_s:.1f} s" if one.cold_start_s else ""
            return f"{one.records_per_s:.1f} ({one.ratio:.2f} x){sizes}{start}"
    return _NONE


def _format(formats: Formats, name: str) -> str:
    for cost in formats.formats:
        if cost.name == name:
            ratio = formats.to_json(name)
            return f"{cost.decode_us:.1f} + {cost.encode_us:.1f} ({ratio:.2f} x)"
    return _NONE


# -- captions ------------------------------------------------------------------------------------


def captions(known: Sequence[Machine]) -> list[str]:
    """Describe the machine and the conditions of each measurement, a paragraph each."""
    paragraphs = []
    for machine in known:
        paragraphs += [f"{_taken(bench)}: {caption(bench)}." for bench in machine.benches]
        paragraphs += [_of_peers(machine.peers)] if machine.peers else []
        paragraphs += [_of_scale_out(machine.scale)] if machine.scale else []
        paragraphs += [_of_variants(machine.variants)] if machine.variants else []
        paragraphs += [_of_formats(machine.formats)] if machine.formats else []
    return [*paragraphs, *_remarks(known)]


def _remarks(known: Sequence[Machine]) -> Iterator[str]:
    benches = [bench for machine in known for bench in machine.benches]
    if any(bench.model.name.startswith("random-") for bench in benches):
        yield (
            "Models whose name begins with `random-` have the architecture and the tokenizer of the "
            "default model, and random weights; the time of a forward pass does not depend on them."
        )
    if benches:
        yield (
            "The goals were set for two cores with AMX. Without AMX or AVX512-BF16, engine and "
            "`pipeline()` use the same number type. A window is `batch.max_records` texts. `-` means "
            "that a figure was not measured on that machine."
        )


def _taken(result: BenchResult | Peers | ScaleOut | Variants | Formats) -> str:
    """Return what was measured, when, and at which commit."""
    kinds = {
        BenchResult: "Bench",
        Peers: "Peers",
        ScaleOut: "Scale-out",
        Variants: "Settings",
        Formats: "Formats",
    }
    when = f" on {result.date}" if result.date else ""
    return kinds[type(result)] + when + (f" at commit {result.commit}" if result.commit else "")


def _of_peers(peers: Peers) -> str:
    threads, records = counted(peers.threads, "thread"), peers.backlog
    differences = [peer.differs for peer in peers.peers if peer.differs and not peer.failed]
    parts = [
        f"{_taken(peers)}: {_machine(peers)}",
        f"torch {peers.torch}",
        f"{peers.model}, {threads}, {records}, {counted(peers.rounds, 'round')} each, in turns",
        f"{peers.broker} on this machine",
    ]
    if differences:
        parts.append(f"probabilities within {max(differences):.0e} of streamlabel's")
    if peers.disturbed:
        parts.append(f"UNRELIABLE: other programs kept {peers.busy_cores:.1f} cores busy")
    return "; ".join(parts) + "."


def _of_scale_out(scale: ScaleOut) -> str:
    last = scale.steps[-1]
    partitions = (
        f"the busiest partition got {last.partition_fairness:.2f} x the records of the idlest"
    )
    if not last.partition_fairness:
        partitions = "some partitions of the backlog were not reached in the time"
    return (
        f"{_taken(scale)}: {_machine(scale)}; a stand-in for the model sleeps "
        f"{scale.service_ms:g} ms a text and uses no CPU; {scale.partitions} partitions; the busiest "
        f"of {last.workers} workers did {last.fairness:.2f} x the work of the idlest; {partitions}."
    )


def _of_variants(variants: Variants) -> str:
    records, rounds = counted(variants.records, "record"), counted(variants.rounds, "round")
    return (
        f"{_taken(variants)}: {_machine(variants)}; {variants.model} model, {records}, {rounds} each, "
        f"in turns.{_noise(variants)}"
    )


def _of_formats(formats: Formats) -> str:
    records = counted(formats.records, "record")
    return (
        f"{_taken(formats)}: {_machine(formats)}; a text of 160 characters and its result with two "
        f"labels, {records} a round, medians of {formats.rounds} rounds in turns; one thread, the "
        "schemas known, no broker."
    )


def _noise(results: Variants) -> str:
    """Say how much rounds of one setting differ; nothing if each setting had one round."""
    spread = max((max(v.rates) / min(v.rates) - 1 for v in results.variants), default=0.0)
    if not spread:
        return ""
    return (
        f" Rounds of one setting differ by up to {spread * 100:.0f} %, so smaller differences between "
        "settings may be noise."
    )


def _machine(result: Peers | ScaleOut | Variants | Formats) -> str:
    features = ", ".join(result.features) or "no matrix extensions"
    return f"{result.cpu}, {counted(result.cores, 'core')} ({features})"
