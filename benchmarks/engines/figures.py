"""The results of the comparison of engines, stored in the machine's engines.json.

Owns: their form, and how later rounds are added.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict

FILE: Final = "engines.json"


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
        """Return whether its rounds can be added to earlier ones."""

        def conditions(model: EngineModel) -> tuple[object, ...]:
            rows = [(e.name, e.runs_as, e.versions, e.failed, *e.turns) for e in model.engines]
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


class Engines(BaseModel):
    """Our engine and others with the same texts, in windows of the same sizes.

    Attributes:
        features: of the processor, those that speed up matrix products.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cpu: str
    cores: int
    features: tuple[str, ...]
    models: tuple[EngineModel, ...]


def engines(folder: Path) -> Engines | None:
    """Return the comparison of engines, or None if its file is missing."""
    file = folder / FILE
    return Engines.model_validate_json(file.read_bytes()) if file.is_file() else None
