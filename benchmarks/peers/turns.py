"""One contender's turn: it drains a backlog, and what it published is looked at.

Owns the processes of peers and the proof that each did the whole job: one outcome for every
record, every label's probability in it, and the group's offsets committed. Its rate counts from
the first outcomes that a reader sees to the last, so that neither loading nor the first batch is
in it. Runs on: the main thread. Must not import: torch.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple, cast

from kafka import KafkaConsumer, TopicPartition

from benchmarks.peers.environments import HERE, python
from worker.bench.rig import Rig
from worker.clock import Clock
from worker.core.records import RawRecord
from worker.demo.sample import PARTITIONS
from worker.errors import Fatal
from worker.kafka_io.connection import connect
from worker.kafka_io.samples import Tail
from worker.pool.shares import cores
from worker.processes import Interrupts, last_lines, spawn, stop
from worker.settings import Loaded, child_environment

_GRACE_S: Final = 20.0
# After the last outcome; Quix Streams commits every 5 s.
_COMMIT_S: Final = 20.0
_COMMIT_STEP_S: Final = 0.5

# Label -> probability.
Scores = Mapping[str, float]


class Turn(NamedTuple):
    """What came out of one; `scores` has the texts' order."""

    records_per_s: float
    scores: Sequence[Scores]


class PeerRig(Rig):
    """A rig whose worker may be somebody else's.

    Args:
        folder: the peer's, next to this file; None is streamlabel itself.
        flags: the peer's, beyond those that every peer has.
        timeout: seconds that a turn may take from the worker's start to the last outcome.
        rig: a rig's own arguments; the settings name broker, model and threads for all.
    """

    def __init__(
        self,
        folder: str | None,
        flags: Sequence[str],
        timeout: float,
        rig: tuple[Loaded, Path, Path, ExitStack, Interrupts, Clock],
    ) -> None:
        super().__init__(*rig)
        self._peer, self._peer_flags, self._timeout = folder, flags, timeout
        self._model = rig[0].settings.model
        self._group, self._input = "", ""

    def turn(self, texts: Sequence[str]) -> Turn:
        """Drain a backlog. Raises Fatal where the contender does not do the whole job."""
        with self.load_test(texts) as test:
            kept = _Kept(test.tail, len(texts), self._clock, self._timeout)
            test.tail = cast("Tail", kept)
            rate = test.drained_at(len(texts))
            self._until_committed(len(texts), kept)
            return Turn(rate, in_order(kept.records, len(texts)))

    def workers(self, group: str, names: dict[str, str], folder: Path) -> Any:
        """Ours, or a peer that acts as `Workers` does."""
        self._group, self._input = group, names["in"]
        if self._peer is None:
            return super().workers(group, names, folder)
        flags = {
            "--bootstrap-servers": self.kafka.bootstrap_servers,
            "--input": names["in"],
            "--output": names["labelled"],
            "--group": group,
            "--model": self._model.name,
        }
        words = [word for pair in flags.items() for word in pair]
        command = [str(python(self._peer)), str(HERE / self._peer / "app.py"), *words]
        command += self._peer_flags
        return PeerProcess(command, folder, self._model.threads or cores(), self._interrupts)

    def _until_committed(self, records: int, kept: _Kept) -> None:
        deadline = self._clock.monotonic() + _COMMIT_S
        while True:
            self._interrupts.sleep(_COMMIT_STEP_S)
            kept.read()  # what comes now has come twice
            if (committed := self._committed()) >= records:
                return
            if self._clock.monotonic() > deadline:
                raise Fatal(f"it published all records and committed only {committed} of {records}")

    def _committed(self) -> int:
        # Joins no group. The topic's offsets begin at 0, so they are also numbers of records.
        consumer = connect(
            KafkaConsumer, self.kafka, group_id=self._group, enable_auto_commit=False
        )
        with contextlib.closing(consumer):
            partitions = (TopicPartition(self._input, number) for number in range(PARTITIONS))
            return sum(consumer.committed(one) or 0 for one in partitions)


class PeerProcess:
    """What a line asks of its workers, for a process that knows no more than to run."""

    def __init__(
        self, command: list[str], folder: Path, threads: int, interrupts: Interrupts
    ) -> None:
        self._command, self._log = command, folder / "peer.log"
        self._threads, self._interrupts = threads, interrupts
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, _number: int) -> None:
        environ = child_environment(
            PYTHONPATH="",
            PYTHONUNBUFFERED="1",
            HF_HUB_OFFLINE="1",
            OMP_NUM_THREADS=str(self._threads),
            TMPDIR=str(self._log.parent),
        )
        with self._log.open("wb") as output:
            self._process = spawn(self._command, output, environ)
        self._interrupts.on_second(self._process.kill)

    def wait_until_ready(self) -> None:
        """Its outcomes have been read: it was."""

    def check(self) -> None:
        """Raise Fatal, with the end of its log, where it has ended by itself."""
        if self._process and (code := self._process.poll()) is not None:
            raise Fatal(f"it ended with {code}:\n{last_lines(self._log)}")

    def stop(self) -> None:
        self.end()

    def end(self) -> None:
        if self._process:
            stop(self._process, _GRACE_S)


class _Kept:
    """A tail that keeps what it read, and does not read for ever."""

    def __init__(self, tail: Tail, number: int, clock: Clock, timeout: float) -> None:
        self._tail, self._number, self._clock, self._timeout = tail, number, clock, timeout
        self._deadline = clock.monotonic() + timeout
        self.records: list[RawRecord] = []

    def read(self) -> list[RawRecord]:
        found = self._tail.read()
        self.records += found
        if len(self.records) < self._number and self._clock.monotonic() > self._deadline:
            many = f"{len(self.records)} of {self._number} records"
            raise Fatal(f"it published {many} within {self._timeout:g} s")
        return found


def in_order(records: Sequence[RawRecord], number: int) -> list[Scores]:
    """Every record's probabilities; the key says which record it is.

    Raises Fatal where one is missing, came twice, or is no list of labels.
    """
    found = {int(record.key or b"-1"): _scores(record.value or b"") for record in records}
    if len(records) != number or sorted(found) != list(range(number)):
        told = f"{len(records)} outcomes of {len(found)} records"
        raise Fatal(f"{told} were published where {number} records were to be labelled")
    return [found[tag] for tag in range(number)]


def farthest(one: Sequence[Scores], other: Sequence[Scores]) -> float:
    """The largest difference of a probability; infinite where the labels differ."""
    return max(
        abs(mine[label] - theirs[label]) if mine.keys() == theirs.keys() else float("inf")
        for mine, theirs in zip(one, other, strict=True)
        for label in mine
    )


def _scores(value: bytes) -> Scores:
    try:
        told = json.loads(value)
        labels = told["labels"] if isinstance(told, dict) else told
        return {one["label"]: float(one["score"]) for one in labels}
    except (ValueError, KeyError, TypeError):
        raise Fatal("it published something else than a label's and its probability") from None
