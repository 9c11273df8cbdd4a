"""Drains a backlog through one worker, in turns with rounds of the engine.

Owns: the drains of a bench, and the end-to-end figures.
Thread: main.
Must not import: torch.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from worker.bench.engine_process import EngineProcess, EngineRound
from worker.bench.figures import CpuUse, EndToEnd
from worker.bench.rig import Rig
from worker.bench.texts import repeated
from worker.bench.usage import CpuMeter


class _Turn(NamedTuple):
    records_per_s: float
    engine: EngineRound
    cpu: CpuMeter

    @property
    def worker_to_engine(self) -> float | None:
        """CPU of the worker a record, divided by that of the engine a text."""
        worker = self.cpu.us_a_record("worker")
        return worker / self.engine.cpu_us_per_text if worker else None


class Drains:
    """Measures the engine and a drain, turn after turn.

    Args:
        engine: measured before each drain.
        rig: provides the worker.
        texts: the texts of each backlog.
        say: tells the user about the progress.

    Attributes:
        resident_bytes: memory of the last worker after its drain; None if unknown.
    """

    resident_bytes: int | None = None

    def __init__(
        self, engine: EngineProcess, rig: Rig, texts: Sequence[str], say: Callable[[str], None]
    ) -> None:
        self._engine, self._rig, self._texts, self._say = engine, rig, texts, say
        self._turns: list[_Turn] = []
        self._records = 0

    def turn(self, progress: str, records_at: Callable[[float], int]) -> None:
        """Measure a round of the engine, then a drain.

        Args:
            progress: the number of the turn, for the user.
            records_at: returns the records of a drain from the engine's texts a second; all drains
                have as many as the first.
        """
        self._say(f"measuring the engine and pipeline(), {progress}")
        engine = self._engine.round()
        self._records = self._records or records_at(engine.texts_per_s)
        records = self._records
        self._say(f"draining {records} records, {progress}")
        with self._rig.load_test(repeated(self._texts, records)) as test:
            meter = self._rig.meter(test, records)
            rate = test.drained_at(records, meter)
            self.resident_bytes = test.resident_bytes()
        self._turns.append(_Turn(rate, engine, meter))

    def end_to_end(self, client_cores: int) -> EndToEnd:
        """Return the medians of all turns."""
        rates = tuple(turn.records_per_s for turn in self._turns)
        return EndToEnd(
            records=self._records,
            rates=rates,
            records_per_s=statistics.median(rates),
            to_engine=statistics.median(
                turn.records_per_s / turn.engine.texts_per_s for turn in self._turns
            ),
            client_cores=client_cores,
            cpu=self._cpu(),
        )

    def _cpu(self) -> CpuUse | None:
        worker, broker, clients = (
            _median(turn.cpu.us_a_record(name) for turn in self._turns)
            for name in ("worker", "broker", "clients")
        )
        if worker is None:
            return None
        return CpuUse(
            worker=worker,
            broker=broker,
            clients=clients,
            worker_to_engine=_median(turn.worker_to_engine for turn in self._turns),
        )


def _median(values: Iterable[float | None]) -> float | None:
    """Return the median of the known values, or None without any."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None
