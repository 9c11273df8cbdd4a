"""The form of the project's own results, one folder of `benchmarks/results/` for each machine.

Owns: the form of peers.json, scale_out.json, variants.json and engines.json;
    `worker.bench.figures` has that of bench.json. `benchmarks.machines` knows the folders.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict

RESULTS: Final = Path(__file__).parent / "results"
# The peer that is no framework: the best loop by hand, which has a goal of its own.
LOOP: Final = "kafka-python + OpenVINO, sorted batches of 32"

Result = TypeVar("Result", bound=BaseModel)


class _Result(BaseModel):
    """The machine, and the code that was measured.

    Attributes:
        features: matrix and vector extensions of the processor.
        date: of the measurement, as 2026-11-27.
        commit: of the source; empty outside a Git repository.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: str
    cores: int
    features: tuple[str, ...]
    date: str = ""
    commit: str = ""


class Peer(BaseModel):
    """One contender.

    Attributes:
        versions: of its main packages.
        records_per_s: the median of `rates`; None if it failed.
        differs: the largest difference of a probability from streamlabel's.
        failed: the reason of a failure.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    versions: str
    records_per_s: float | None
    rates: tuple[float, ...]
    differs: float | None
    failed: str | None

    @property
    def title(self) -> str:
        """Name with versions."""
        return f"{self.name} ({self.versions})" if self.versions else self.name


class Peers(_Result):
    """A backlog drained by each contender; the first is streamlabel.

    Attributes:
        busy_cores: cores that other programs kept busy in the seconds before. They slow down most
            the contenders that wait for all threads after every small step.
    """

    busy_cores: float
    torch: str
    broker: str
    model: str
    threads: int
    records: int
    rounds: int
    peers: tuple[Peer, ...]

    def ratios(self) -> list[tuple[Peer, float | None]]:
        """Return each contender with streamlabel's speed relative to it, in the same run."""
        ours = self.peers[0].records_per_s
        return [
            (peer, ours / peer.records_per_s if ours and peer.records_per_s else None)
            for peer in self.peers
        ]

    @property
    def disturbed(self) -> bool:
        """True if other programs kept so many cores busy that the ratios are unreliable."""
        return self.busy_cores > self.cores / 4

    @property
    def to_best(self) -> float | None:
        """The speed of streamlabel relative to the fastest framework."""
        others = self.ratios()[1:]
        return min((ratio for peer, ratio in others if ratio and peer.name != LOOP), default=None)

    @property
    def to_loop(self) -> float | None:
        """The speed of streamlabel relative to the best loop by hand."""
        return next((ratio for peer, ratio in self.ratios() if peer.name == LOOP), None)


class ScaleStep(BaseModel):
    """The throughput of a number of workers on one topic.

    Attributes:
        efficiency: records_per_s / (workers x that of one worker).
        fairness: records of the busiest worker / records of the idlest.
        partition_fairness: the same ratio of partitions; 0 if a partition had no records labelled.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int
    records_per_s: float
    efficiency: float
    fairness: float
    partition_fairness: float


class ScaleOut(_Result):
    """Growing numbers of workers, whose model takes a fixed time for each text."""

    service_ms: float
    partitions: int
    steps: tuple[ScaleStep, ...]


class Variant(BaseModel):
    """One of the settings that a comparison measures.

    Attributes:
        question: the name of the comparison.
        records_per_s: the median of `rates`.
        ratio: records_per_s relative to the first setting of the comparison.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    name: str
    records_per_s: float
    rates: tuple[float, ...]
    ratio: float


class Variants(_Result):
    """The same backlog, drained under different settings."""

    model: str
    records: int
    rounds: int
    variants: tuple[Variant, ...]


class EngineTurn(BaseModel):
    """An engine's turn in a round: all texts of the round in windows of one size.

    Attributes:
        cpu_us: CPU microseconds a text, of all threads.
        flips: texts with another label than float32, each text alone; None without a reference.
        mean_dp: mean absolute difference of a probability from it.
        max_dp: largest absolute difference.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    texts_per_s: float
    cpu_us: float
    flips: int | None
    mean_dp: float | None
    max_dp: float | None


class EngineFigures(BaseModel):
    """One engine in one number type.

    Attributes:
        runs_as: the number type and the way that it really computed in.
        turns: window -> a turn for each round.
        alone_ms: of each round, the median milliseconds for one text.
        failed: the reason of a failure; then the figures end with it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    engine: str
    dtype: str
    runs_as: str
    versions: str
    turns: dict[str, tuple[EngineTurn, ...]]
    alone_ms: tuple[float, ...]
    failed: str | None

    def extended(self, later: EngineFigures) -> EngineFigures:
        """Return the figures with those of later rounds."""
        update: dict[str, object] = {
            "turns": {window: turns + later.turns[window] for window, turns in self.turns.items()},
            "alone_ms": self.alone_ms + later.alone_ms,
        }
        return self.model_copy(update=update)


class EngineModel(BaseModel):
    """The engines side by side on one model.

    Attributes:
        date: of the last round, as YYYY-MM-DD.
        busy_cores: cores that other programs kept busy in the seconds before; the largest value if
            the rounds were run in several parts.
        texts: of a round; no text is in two rounds until all were used.
        rounds: number of rounds.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    date: str
    busy_cores: float
    threads: int
    texts: int
    rounds: int
    engines: tuple[EngineFigures, ...]

    def engine(self, engine: str, dtype: str) -> EngineFigures | None:
        """Return an engine that has figures, or None."""
        return next(
            (e for e in self.engines if (e.engine, e.dtype) == (engine, dtype) and not e.failed),
            None,
        )

    @staticmethod
    def ratio(left: EngineFigures, right: EngineFigures, window: str) -> float:
        """Return the median over all rounds of one engine's speed relative to another's."""
        pairs = zip(left.turns[window], right.turns[window], strict=True)
        return statistics.median(a.texts_per_s / b.texts_per_s for a, b in pairs)

    def continues(self, earlier: EngineModel) -> bool:
        """Whether its rounds can be added to earlier ones."""

        def conditions(model: EngineModel) -> tuple[object, ...]:
            rows = [(e.name, e.runs_as, e.versions, e.failed) for e in model.engines]
            return model.name, model.threads, model.texts, rows

        return conditions(self) == conditions(earlier)

    def after(self, earlier: EngineModel) -> EngineModel:
        """Return its rounds with earlier ones before them."""
        pairs = zip(earlier.engines, self.engines, strict=True)
        update: dict[str, object] = {
            "busy_cores": max(self.busy_cores, earlier.busy_cores),
            "rounds": self.rounds + earlier.rounds,
            "engines": tuple(first.extended(second) for first, second in pairs),
        }
        return self.model_copy(update=update)


class Engines(_Result):
    """Our engine and others with the same texts, in windows of the same sizes."""

    models: tuple[EngineModel, ...]


def engines(folder: Path) -> Engines | None:
    """Return the comparison of engines, or None if its file is missing."""
    return _result(Engines, folder / "engines.json")


def results(folder: Path) -> tuple[Peers | None, ScaleOut | None, Variants | None]:
    """Return the results of peers, scale-out and settings in one machine's folder, or None."""
    return (
        _result(Peers, folder / "peers.json"),
        _result(ScaleOut, folder / "scale_out.json"),
        _result(Variants, folder / "variants.json"),
    )


def _result(kind: type[Result], path: Path) -> Result | None:
    return kind.model_validate_json(path.read_bytes()) if path.is_file() else None
