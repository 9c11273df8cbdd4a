"""The form of the project's own results, one folder of `benchmarks/results/` for each machine.

Owns: the form of peers.json, scale_out.json and variants.json; `worker.bench.figures` has that of
    bench.json. `benchmarks.machines` reads and writes the folders.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


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
    def to_best_framework(self) -> float | None:
        """The speed of streamlabel relative to the fastest peer that is not hand-made."""
        return self._to_best(handmade=False)

    @property
    def to_handmade(self) -> float | None:
        """The speed of streamlabel relative to the fastest hand-made loop around OpenVINO."""
        return self._to_best(handmade=True)

    def _to_best(self, *, handmade: bool) -> float | None:
        others = [(peer, ratio) for peer, ratio in self.ratios()[1:] if ratio]
        return min((r for peer, r in others if ("OpenVINO" in peer.name) is handmade), default=None)


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
