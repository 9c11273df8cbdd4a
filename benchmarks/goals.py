"""The project's goals for speed, beside what was measured; as rows and as Markdown. Pure.

A goal that was not measured has no row in the README. Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from benchmarks.recorded import RESULTS, Peers, ScaleOut, Variants, results
from worker.bench.figures import BenchResult, read
from worker.bench.table import caption


class Measured(NamedTuple):
    """The results that are at hand."""

    bench: BenchResult | None
    peers: Peers | None
    scale: ScaleOut | None
    variants: Variants | None


@dataclass(frozen=True)
class Goal:
    """One figure and its bound; `least` is a bound that is less than the goal, and bearable."""

    what: str
    way: Literal["at least", "at most"]
    bound: float
    figure: Callable[[Measured], float | None]
    unit: str = ""
    least: float | None = None

    @property
    def words(self) -> str:
        """As in the README's table."""
        sign = "≥" if self.way == "at least" else "≤"
        bearable = f" (at least {self.least:g})" if self.least else ""
        return f"{sign} {self.bound:g}{self.unit}{bearable}"

    def verdict(self, figure: float) -> str:
        """Whether the goal is met."""
        met = figure >= self.bound if self.way == "at least" else figure <= self.bound
        if met:
            return "met"
        return "bearable" if self.least and figure >= self.least else "not met"


def _eight(scale: ScaleOut) -> float | None:
    return next((step.efficiency for step in scale.steps if step.workers == 8), None)


GOALS: tuple[Goal, ...] = (
    Goal(
        "engine : `pipeline()` float32, batches of 32 in arrival order, same texts",
        "at least",
        20,
        lambda m: m.bench.engine.to_pipeline if m.bench else None,
        least=12,
    ),
    Goal(
        "engine : matrix products of the same precision",
        "at least",
        0.7,
        lambda m: m.bench.engine.roofline.share if m.bench and m.bench.engine.roofline else None,
        least=0.5,
    ),
    Goal(
        "end to end through the broker : engine alone",
        "at least",
        0.95,
        lambda m: m.bench.end_to_end.to_engine if m.bench else None,
    ),
    Goal(
        "end to end : the best peer",
        "at least",
        8,
        lambda m: m.peers.to_best if m.peers else None,
    ),
    Goal(
        "p99 end to end at 50 % load : time of one full window",
        "at most",
        3,
        lambda m: m.bench.latency.p99_to_window if m.bench else None,
    ),
    Goal(
        "one text alone on an idle worker, without its bare forward pass",
        "at most",
        10,
        lambda m: m.bench.latency.alone_overhead_ms if m.bench else None,
        unit=" ms",
    ),
    Goal(
        "8 workers : 8 x one worker",
        "at least",
        0.95,
        lambda m: _eight(m.scale) if m.scale else None,
    ),
    Goal(
        "cold start to ready, model in the cache",
        "at most",
        6,
        lambda m: m.bench.cold_start_s if m.bench else None,
        unit=" s",
    ),
)


def measured(folder: Path = RESULTS) -> Measured:
    """What the files in `folder` hold. Raises SettingsError where bench.json is of another form."""
    figures = folder / "bench.json"
    return Measured(read(figures) if figures.is_file() else None, *results(folder))


def rows(found: Measured) -> list[tuple[str, str, str, str]]:
    """What, goal, figure and verdict of every goal that was measured."""
    figures = ((goal, goal.figure(found)) for goal in GOALS)
    return [
        (goal.what, goal.words, f"{figure:.2f}{goal.unit}", goal.verdict(figure))
        for goal, figure in figures
        if figure is not None
    ]


def captions(found: Measured) -> list[str]:
    """On what machine, one sentence a run."""
    said = []
    if found.bench:
        said.append(f"Measured on {caption(found.bench)}.")
        if not any("amx" in feature for feature in found.bench.machine.features):
            said.append(
                "The goals were set for two cores with AMX, in bfloat16; here engine and "
                "`pipeline()` compute alike, and broker and reader share the worker's cores."
            )
    if found.peers:
        said.append(_of_peers(found.peers))
    if found.scale:
        told = f"{found.scale.service_ms:g} ms a text, {found.scale.partitions} partitions"
        last = found.scale.steps[-1]
        shares = (
            f"the busiest of {last.workers} workers did {last.fairness:.2f} x the idlest's work"
        )
        turns = f"of partitions, {last.partition_fairness:.2f} x"
        if not last.partition_fairness:
            turns = "some partitions of the backlog had no turn in the time"
        said.append(f"Scale-out: {_where(found.scale)}; {told}; {shares}; {turns}.")
    if found.variants:
        told = f"{found.variants.model} model, {found.variants.records} records, in turns"
        rounds = f"{found.variants.rounds} round(s) each"
        said.append(f"Settings: {_where(found.variants)}; {told}, {rounds}.")
    return said


def markdown(folder: Path = RESULTS) -> str:
    """Tables of goals and of peers, with the machines; empty where nothing has been measured."""
    found = measured(folder)
    parts = []
    if goals := rows(found):
        parts.append(_table(("What", "Goal", "Measured", ""), goals))
    if found.peers:
        peers = [
            (
                p.title,
                f"{p.records_per_s:.1f}" if p.records_per_s else p.failed or "-",
                _times(ratio),
            )
            for p, ratio in found.peers.ratios()
        ]
        parts.append(_table(("End to end", "Records/s", "streamlabel is"), peers))
    if found.variants:
        variants = [
            (v.question, v.name, f"{v.records_per_s:.1f}", f"{v.ratio:.2f} x")
            for v in found.variants.variants
        ]
        parts.append(_table(("What a setting is worth", "", "Records/s", "To the first"), variants))
    return "\n\n".join([*parts, *captions(found)])


def _of_peers(peers: Peers) -> str:
    told = f"{peers.model}, {peers.threads} thread(s), {peers.records} records, in turns"
    said = f"Peers: {_where(peers)}; torch {peers.torch}; {told}, {peers.rounds} round(s) each"
    differs = [peer.differs for peer in peers.peers if peer.differs and not peer.failed]
    same = f"; probabilities within {max(differs):.0e} of streamlabel's" if differs else ""
    busy = (
        f"; THE MACHINE HAD OTHER WORK, {peers.busy_cores:.1f} cores busy"
        if peers.disturbed
        else ""
    )
    return f"{said}; {peers.broker} on this machine{same}{busy}."


def _where(result: Peers | ScaleOut | Variants) -> str:
    features = ", ".join(result.features) or "no known matrix extension"
    return f"{result.cpu}, {result.cores} core(s) ({features})"


def _times(ratio: float | None) -> str:
    return f"{ratio:.2f} x" if ratio else ""


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
