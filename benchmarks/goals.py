"""The project's goals for speed beside the measured figures, as rows and as Markdown.

A goal without a measured figure has no row.

Owns: the goals, and the tables of docs/performance.md; pure, except for reading the results.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from benchmarks.recorded import RESULTS, Peers, ScaleOut, Variants, results
from worker.bench.figures import BenchResult, read
from worker.bench.table import caption
from worker.core.counted import counted


class Measured(NamedTuple):
    """The recorded results, each None if it has not been measured."""

    bench: BenchResult | None
    peers: Peers | None
    scale: ScaleOut | None
    variants: Variants | None


@dataclass(frozen=True)
class Goal:
    """One figure and its bound.

    Attributes:
        measurement: the description of the figure.
        direction: on which side of the bound the goal is met.
        bound: the goal.
        figure: returns the figure, or None if it was not measured.
        unit: of the figure.
        acceptable: a weaker lower bound; None if there is none.
    """

    measurement: str
    direction: Literal["at least", "at most"]
    bound: float
    figure: Callable[[Measured], float | None]
    unit: str = ""
    acceptable: float | None = None

    @property
    def condition(self) -> str:
        """The bound as a condition, such as `≤ 10 ms`."""
        sign = "≥" if self.direction == "at least" else "≤"
        weaker = f" (acceptable: ≥ {self.acceptable:g})" if self.acceptable else ""
        return f"{sign} {self.bound:g}{self.unit}{weaker}"

    def verdict(self, figure: float) -> str:
        """Return `met`, `acceptable` or `not met`."""
        met = figure >= self.bound if self.direction == "at least" else figure <= self.bound
        if met:
            return "met"
        return "acceptable" if self.acceptable and figure >= self.acceptable else "not met"


def _efficiency_of_eight(scale: ScaleOut) -> float | None:
    return next((step.efficiency for step in scale.steps if step.workers == 8), None)


GOALS: tuple[Goal, ...] = (
    Goal(
        "engine / `pipeline()` in float32, batches of 32 in arrival order, same texts",
        "at least",
        20,
        lambda m: m.bench.engine.to_pipeline if m.bench else None,
        acceptable=12,
    ),
    Goal(
        "engine / matrix products of the same precision",
        "at least",
        0.7,
        lambda m: m.bench.engine.roofline.share if m.bench and m.bench.engine.roofline else None,
        acceptable=0.5,
    ),
    Goal(
        "end to end through the broker / engine alone",
        "at least",
        0.95,
        lambda m: m.bench.end_to_end.to_engine if m.bench else None,
    ),
    Goal(
        "end to end / best peer",
        "at least",
        8,
        lambda m: m.peers.to_best if m.peers else None,
    ),
    Goal(
        "p99 end to end at 50 % load / time of one full window",
        "at most",
        3,
        lambda m: m.bench.latency.p99_to_window if m.bench else None,
    ),
    Goal(
        "single text on an idle worker, without its bare forward pass",
        "at most",
        10,
        lambda m: m.bench.latency.alone_overhead_ms if m.bench else None,
        unit=" ms",
    ),
    Goal(
        "8 workers / 8 x one worker, with a model that only sleeps",
        "at least",
        0.95,
        lambda m: _efficiency_of_eight(m.scale) if m.scale else None,
    ),
    Goal(
        "cold start to ready, model cached",
        "at most",
        6,
        lambda m: m.bench.cold_start_s if m.bench else None,
        unit=" s",
    ),
)


def measured(folder: Path = RESULTS) -> Measured:
    """Return the results in `folder`. Raises SettingsError if bench.json has another form."""
    bench = folder / "bench.json"
    return Measured(read(bench) if bench.is_file() else None, *results(folder))


def rows(measured: Measured) -> list[tuple[str, str, str, str]]:
    """Return measurement, goal, figure and verdict of every goal that was measured."""
    figures = ((goal, goal.figure(measured)) for goal in GOALS)
    return [
        (goal.measurement, goal.condition, f"{figure:.2f}{goal.unit}", goal.verdict(figure))
        for goal, figure in figures
        if figure is not None
    ]


def captions(results: Measured) -> list[str]:
    """Describe the machine and the conditions of each measurement, a paragraph each."""
    paragraphs = []
    if results.bench:
        paragraphs.append(f"Measured on {caption(results.bench)}.")
        if results.bench.model.name.startswith("random-"):
            paragraphs.append(
                f"{results.bench.model.name} has the architecture and the tokenizer of the default "
                "model, and random weights; the time of a forward pass does not depend on them."
            )
        if not any("amx" in feature for feature in results.bench.machine.features):
            paragraphs.append(
                "The goals were set for two cores with AMX, in bfloat16. Without AMX, engine and "
                "`pipeline()` use the same arithmetic. Broker and reader share the worker's cores."
            )
    if results.peers:
        paragraphs.append(_of_peers(results.peers))
    if results.scale:
        paragraphs.append(_of_scale_out(results.scale))
    if results.variants:
        records = counted(results.variants.records, "record")
        rounds = counted(results.variants.rounds, "round")
        paragraphs.append(
            f"Settings: {_machine(results.variants)}; {results.variants.model} model, {records}, "
            f"{rounds} each, in turns.{_noise(results.variants)}"
        )
    return paragraphs


def markdown(folder: Path = RESULTS) -> str:
    """Return the tables of goals, peers and settings with their captions; empty without results."""
    results = measured(folder)
    parts = []
    if goals := rows(results):
        parts.append(_table(("Measurement", "Goal", "Figure", "Verdict"), goals))
    if results.peers:
        peers = [
            (
                peer.title,
                f"{peer.records_per_s:.1f}" if peer.records_per_s else peer.failed or "-",
                f"{ratio:.2f} x" if ratio else "",
            )
            for peer, ratio in results.peers.ratios()
        ]
        parts.append(_table(("End to end", "Records/s", "Speed of streamlabel"), peers))
    if results.variants:
        variants = [
            (
                variant.question,
                variant.name,
                f"{variant.records_per_s:.1f}",
                f"{variant.ratio:.2f} x",
            )
            for variant in results.variants.variants
        ]
        head = ("Comparison", "Setting", "Records/s", "Relative to the first")
        parts.append(_table(head, variants))
    return "\n\n".join([*parts, *captions(results)])


def _noise(results: Variants) -> str:
    """Say how much rounds of one setting differ; nothing if each setting had one round."""
    spread = max((max(v.rates) / min(v.rates) - 1 for v in results.variants), default=0.0)
    if not spread:
        return ""
    return (
        f" Rounds of one setting differ by up to {spread * 100:.0f} %, so smaller differences between "
        "settings may be noise."
    )


def _of_peers(peers: Peers) -> str:
    threads, records = counted(peers.threads, "thread"), peers.backlog
    differences = [peer.differs for peer in peers.peers if peer.differs and not peer.failed]
    parts = [
        f"Peers: {_machine(peers)}",
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
        f"Scale-out: {_machine(scale)}; a stand-in for the model sleeps {scale.service_ms:g} ms a "
        f"text and uses no CPU; {scale.partitions} partitions; the busiest of {last.workers} workers "
        f"did {last.fairness:.2f} x the work of the idlest; {partitions}."
    )


def _machine(result: Peers | ScaleOut | Variants) -> str:
    features = ", ".join(result.features) or "no matrix extensions"
    return f"{result.cpu}, {counted(result.cores, 'core')} ({features})"


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join("| " + " | ".join(map(_cell, line)) + " |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
