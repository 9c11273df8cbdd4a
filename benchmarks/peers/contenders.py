"""The programs that do the same work, and their rows in the results.

Owns: the list.
Thread: main.
Must not import: torch.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from benchmarks.peers.environments import pins
from benchmarks.peers.turns import Scores, Turn, largest_difference
from benchmarks.recorded import LOOP, Peer
from worker.errors import Fatal

LARGEST: Final = 3.0  # share of the fast ones
_SLOW: Final = 1 / 3
# The same model in another number type differs by less: the bound for bfloat16.
_TOLERANCE: Final = 0.03


@dataclass
class Contender:
    """One row of the table; a `folder` of None is streamlabel itself.

    Attributes:
        share: its backlog relative to `--records`: the fast ones publish hundreds of results at
            once and need several of these batches, and the slow ones would take too long.
    """

    name: str
    folder: str | None = None
    flags: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    share: float = 1.0
    records: int | None = None
    rates: list[float] = field(default_factory=list)
    differs: float | None = None
    failed: str | None = None

    def take(self, turn: Turn, ours: Sequence[Scores]) -> None:
        """Add the result of a turn. Raises Fatal if the probabilities are not streamlabel's."""
        self.rates.append(turn.records_per_s)
        self.records = len(turn.scores)
        same = ours[: len(turn.scores)]
        self.differs = max(largest_difference(same, turn.scores), self.differs or 0.0)
        if self.differs > _TOLERANCE:
            raise Fatal(
                f"its probabilities differ from streamlabel's by {self.differs:.2f} "
                f"(tolerance {_TOLERANCE})"
            )

    @property
    def row(self) -> Peer:
        median = statistics.median(self.rates) if self.rates and not self.failed else None
        locked = pins(self.folder) if self.folder else {}
        return Peer(
            name=self.name,
            versions=", ".join(f"{package} {locked[package]}" for package in self.packages),
            records_per_s=median,
            rates=tuple(self.rates),
            differs=self.differs,
            failed=self.failed,
            records=self.records,
        )


def contenders() -> list[Contender]:
    """Return all contenders; the first, streamlabel, is the reference of the others."""
    plain, batch = ("kafka-python", "transformers"), ("--batch", "32")
    padded = ("--pad-to", "256")
    return [
        Contender("streamlabel", share=LARGEST),
        Contender("kafka-python + `pipeline()`, text by text", "plain", (), plain),
        Contender("kafka-python + `pipeline()`, batches of 32", "plain", batch, plain),
        Contender(
            "kafka-python + `pipeline()`, each text padded to 256 tokens", "plain", padded, plain
        ),
        Contender(
            LOOP, "openvino", (), ("kafka-python", "openvino", "transformers"), share=LARGEST
        ),
        Contender(
            "Quix Streams + `pipeline()`", "quixstreams", (), ("quixstreams", "transformers")
        ),
        Contender(
            "FastStream + `pipeline()`, batches of 32",
            "faststream",
            (),
            ("faststream", "transformers"),
        ),
        Contender(
            "MLServer, adaptive batches of up to 32",
            "mlserver",
            (),
            ("mlserver-huggingface", "transformers"),
        ),
        Contender(
            "Apache Beam RunInference, from a file",
            "beam",
            (),
            ("apache-beam", "transformers"),
        ),
    ]
