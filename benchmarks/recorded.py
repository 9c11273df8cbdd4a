"""The form of the project's own results, one folder of `benchmarks/results/` for each machine.

Owns: the form of formats.json, peers.json, scale_out.json and variants.json. `worker.bench.figures`
    has that of bench.json, and `benchmarks.engines.figures` that of engines.json.
    `benchmarks.machines` knows the folders.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict

from worker.core.counted import counted

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
        records: of its backlog; None in older files, where all have the same.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    versions: str
    records_per_s: float | None
    rates: tuple[float, ...]
    differs: float | None
    failed: str | None
    records: int | None = None

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

    @property
    def backlog(self) -> str:
        """The size of the backlog, or the least and the largest."""
        sizes = {peer.records or self.records for peer in self.peers} or {self.records}
        least = f"{min(sizes):,} to " if len(sizes) > 1 else ""
        return f"{least}{counted(max(sizes), 'record')}"

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
        memory_mib: of the worker after the drain; None where it was not measured.
        cold_start_s: seconds until the worker was ready; None where it was not measured.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    name: str
    records_per_s: float
    rates: tuple[float, ...]
    ratio: float
    memory_mib: float | None = None
    cold_start_s: float | None = None


class Variants(_Result):
    """The same backlog, drained under different settings."""

    model: str
    records: int
    rounds: int
    variants: tuple[Variant, ...]


class FormatCost(BaseModel):
    """The CPU time of a record in one format, in and out.

    Attributes:
        decode_us: from the polled record to its text, in microseconds.
        encode_us: from the prediction to the record that is published.
        total_us: both; each figure is a median of its own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    decode_us: float
    encode_us: float
    total_us: float


class Formats(_Result):
    """The same text in each format, in turns; JSON is the first."""

    rounds: int
    records: int
    formats: tuple[FormatCost, ...]

    def to_json(self, name: str) -> float | None:
        """Return the time in a format relative to JSON."""
        first = self.formats[0].total_us
        return next((cost.total_us / first for cost in self.formats if cost.name == name), None)


Recorded = tuple[Peers | None, ScaleOut | None, Variants | None, Formats | None]


def results(folder: Path) -> Recorded:
    """Return the results of peers, scale-out, settings and formats of one machine, or None."""
    return (
        _result(Peers, folder / "peers.json"),
        _result(ScaleOut, folder / "scale_out.json"),
        _result(Variants, folder / "variants.json"),
        _result(Formats, folder / "formats.json"),
    )


def _result(kind: type[Result], path: Path) -> Result | None:
    return kind.model_validate_json(path.read_bytes()) if path.is_file() else None
