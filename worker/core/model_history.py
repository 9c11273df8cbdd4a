"""Finds out from results which model labelled which records, and since when.

A run is a sequence of results of one input partition by one model, in the order of the output. Its
records are consecutive but for dead letters, which have no model. A change of the model begins a
new run, and so does a return to an earlier model.

Owns: the runs.
Thread: main, of `streamlabel model history`; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from worker.core.records import Partition

# Runs of a partition that are kept, the newest. Two thousand changes are more than a topic's
# retention sees, and a thousand partitions with that many take less than 300 MB.
MOST_RUNS: Final = 2_000


class LabellingModel(NamedTuple):
    """The model that a result names."""

    name: str
    revision: str
    weights_sha256: str


@dataclass(slots=True)
class ModelRun:
    """Consecutive results of one input partition by one model.

    Attributes:
        first, last: least and greatest input offset.
        results: their number; above `last - first + 1` if records were labelled twice.
        since_ms: when the first of them was labelled, in ms since 1970.
    """

    model: LabellingModel
    first: int
    last: int
    results: int
    since_ms: int


@dataclass(slots=True)
class ModelUse:
    """The use of one model in all partitions.

    Attributes:
        since_ms: when its first result was labelled.
        results: their number.
        newest_in: input partitions whose newest result it labelled.
    """

    model: LabellingModel
    since_ms: int
    results: int = 0
    newest_in: int = 0


@dataclass
class ModelHistory:
    """The runs of every input partition.

    Attributes:
        runs: by input partition, oldest first.
        left_out: runs of a partition that are no longer kept.
        results: all results, those of runs that are no longer kept too.
    """

    runs: dict[Partition, list[ModelRun]] = field(default_factory=dict)
    left_out: Counter[Partition] = field(default_factory=Counter)
    results: int = 0

    def note(
        self, partition: Partition, offset: int, model: LabellingModel, processed_at: Any
    ) -> None:
        """Add a result; those of a partition come in the order of the output.

        Args:
            partition: of the input record.
            offset: of the input record.
            model: as the result names it.
            processed_at: the member of the result, in any format.

        Raises:
            ValueError: `processed_at` is no time.
        """
        runs = self.runs.setdefault(partition, [])
        if not runs or runs[-1].model != model:
            runs.append(ModelRun(model, offset, offset, 0, moment_ms(processed_at)))
        run = runs[-1]
        run.first, run.last = min(run.first, offset), max(run.last, offset)
        run.results += 1
        self.results += 1
        if len(runs) > MOST_RUNS:
            del runs[0]
            self.left_out[partition] += 1

    def add(self, other: ModelHistory) -> None:
        """Add the results of another topic of results, whose runs are known already.

        Runs of one model that follow each other in time become one. So where a worker went back to
        an earlier model, offsets of both runs of it may be in one.
        """
        for partition, runs in other.runs.items():
            joined: list[ModelRun] = []
            for run in sorted(
                (*self.runs.get(partition, ()), *runs), key=lambda run: (run.since_ms, run.first)
            ):
                if joined and joined[-1].model == run.model:
                    joined[-1] = _joined(joined[-1], run)
                else:
                    joined.append(run)
            self.left_out[partition] += max(0, len(joined) - MOST_RUNS)
            self.runs[partition] = joined[-MOST_RUNS:]
        self.left_out.update(other.left_out)
        self.results += other.results

    def models(self) -> list[ModelUse]:
        """Return every model of the runs that are kept, in the order of their first results."""
        found: dict[LabellingModel, ModelUse] = {}
        for runs in self.runs.values():
            for run in runs:
                use = found.setdefault(run.model, ModelUse(run.model, run.since_ms))
                use.since_ms = min(use.since_ms, run.since_ms)
                use.results += run.results
            found[runs[-1].model].newest_in += 1
        return sorted(found.values(), key=lambda use: use.since_ms)


def _joined(run: ModelRun, later: ModelRun) -> ModelRun:
    first, last = min(run.first, later.first), max(run.last, later.last)
    return ModelRun(run.model, first, last, run.results + later.results, run.since_ms)


def moment_ms(value: Any) -> int:
    """Return a result's `processed_at` in ms since 1970.

    Args:
        value: text (JSON), a number of ms (Avro), or seconds and nanos (Protobuf).

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        moment = datetime.fromisoformat(value)
        return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if isinstance(value, Mapping) and isinstance(value.get("seconds"), int):
        return int(value["seconds"] * 1000 + (value.get("nanos") or 0) // 1_000_000)
    raise ValueError(f"{type(value).__name__} is no time")
