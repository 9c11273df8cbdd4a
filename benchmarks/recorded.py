"""What the project's own benchmarks found, as it stands in `benchmarks/results/`.

Owns the form of those files beside `bench.json`, whose form `bench_figures` owns. They are written
by `make bench`, `make bench-peers`, `make bench-scale` and `make bench-variants`. Must not import: kafka, torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, TypeVar

from pydantic import BaseModel, ConfigDict

RESULTS: Final = Path(__file__).parent / "results"

Result = TypeVar("Result", bound=BaseModel)


class _Result(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: str
    cores: int
    features: tuple[str, ...]


class Peer(BaseModel):
    """One contender.

    Attributes:
        versions: of its main packages.
        records_per_s: the median of `rates`, or `failed` says why there is none.
        differs: by how much a probability of its differed from streamlabel's, at most.
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
        """Name and versions."""
        return f"{self.name} ({self.versions})" if self.versions else self.name


class Peers(_Result):
    """A backlog drained by each; the first is streamlabel.

    Attributes:
        busy_cores: that had work in the seconds before. Whoever waits for all threads after every
            small step loses most where others take the cores.
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
        """Each with how many times faster than it streamlabel was, in the same run."""
        ours = self.peers[0].records_per_s
        return [
            (peer, ours / peer.records_per_s if ours and peer.records_per_s else None)
            for peer in self.peers
        ]

    @property
    def disturbed(self) -> bool:
        """Whether so much else ran that the ratios are no good."""
        return self.busy_cores > self.cores / 4

    @property
    def to_best(self) -> float | None:
        """How many times faster streamlabel was than the fastest of the others."""
        return min((ratio for _, ratio in self.ratios()[1:] if ratio), default=None)


class ScaleStep(BaseModel):
    """So many workers on one topic.

    Attributes:
        efficiency: records_per_s : (workers x that of one worker).
        fairness: records of the busiest worker : of the least busy one.
        partition_fairness: the same, of partitions; 0 where one of them had no turn.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    workers: int
    records_per_s: float
    efficiency: float
    fairness: float
    partition_fairness: float


class ScaleOut(_Result):
    """More and more workers whose model takes a fixed time for each text."""

    service_ms: float
    partitions: int
    steps: tuple[ScaleStep, ...]


class Variant(BaseModel):
    """One setting among those that a question compares.

    Attributes:
        ratio: records_per_s, the median of `rates`, to that of the question's first.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    question: str
    name: str
    records_per_s: float
    rates: tuple[float, ...]
    ratio: float


class Variants(_Result):
    """The same backlog drained under different settings."""

    model: str
    records: int
    rounds: int
    variants: tuple[Variant, ...]


def results(folder: Path = RESULTS) -> tuple[Peers | None, ScaleOut | None, Variants | None]:
    """What is there of the three; None for a file that has not been written."""
    return (
        _result(Peers, folder / "peers.json"),
        _result(ScaleOut, folder / "scale_out.json"),
        _result(Variants, folder / "variants.json"),
    )


def _result(kind: type[Result], path: Path) -> Result | None:
    return kind.model_validate_json(path.read_bytes()) if path.is_file() else None
