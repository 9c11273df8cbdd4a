"""One contender's turn: it drains a backlog, and its output is checked.

A turn is complete with one outcome for every record, every label's probability in it, and the
group's offsets committed. The rate counts from the end of the first batch of outcomes to the last
outcome, so it includes neither loading nor the first batch.

Owns: the processes of peers, and the check of their output.
Thread: main.
Must not import: torch.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import pairwise
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
from worker.limits import cores
from worker.processes import Interrupts, last_lines, spawn, stop
from worker.settings import Loaded, child_environment

_GRACE_S: Final = 20.0
# After the last outcome; Quix Streams commits every 5 s.
_COMMIT_S: Final = 20.0
_COMMIT_STEP_S: Final = 0.5
# Between two batches of outcomes. Within one, every read finds some (a read each 50 ms).
_PAUSE_S: Final = 0.15

# Label -> probability.
Scores = Mapping[str, float]


class Turn(NamedTuple):
    """The result of a turn; `scores` are in the order of the texts."""

    records_per_s: float
    scores: Sequence[Scores]


class PeerRig(Rig):
    """A rig that runs a peer in place of the worker.

    Args:
        folder: the peer's folder next to this file; None runs streamlabel.
        flags: the peer's flags, besides those that every peer has.
        timeout: maximum seconds from the worker's start to the last outcome.
        rig: arguments of `Rig`; the settings have broker, model and threads for all.
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
        """Drain a backlog. Raises Fatal if the contender's output is incomplete."""
        with self.load_test(texts) as test:
            tail = RecordingTail(test.tail, len(texts), self._clock, self._timeout)
            test.tail = cast("Tail", tail)
            test.drained_at(len(texts))
            rate = rate_of(tail.reads)
            self._wait_for_commit(len(texts), tail)
            return Turn(rate, in_order(tail.records, len(texts)))

    def workers(self, group: str, names: dict[str, str], folder: Path) -> Any:
        """Return streamlabel's workers, or a peer with the same methods."""
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
        arguments = [argument for pair in flags.items() for argument in pair]
        command = [str(python(self._peer)), str(HERE / self._peer / "app.py"), *arguments]
        command += self._peer_flags
        return PeerProcess(command, folder, self._model.threads or cores(), self._interrupts)

    def _wait_for_commit(self, records: int, tail: RecordingTail) -> None:
        deadline = self._clock.monotonic() + _COMMIT_S
        while True:
            self._interrupts.sleep(_COMMIT_STEP_S)
            tail.read()  # records duplicates
            if (committed := self._committed()) >= records:
                return
            if self._clock.monotonic() > deadline:
                raise Fatal(f"published all {records} records, but committed only {committed}")

    def _committed(self) -> int:
        # Does not join the group. Offsets begin at 0, so they are also numbers of records.
        consumer = connect(
            KafkaConsumer, self.kafka, group_id=self._group, enable_auto_commit=False
        )
        with contextlib.closing(consumer):
            partitions = (TopicPartition(self._input, number) for number in range(PARTITIONS))
            return sum(consumer.committed(partition) or 0 for partition in partitions)


class PeerProcess:
    """A peer's process, with the methods that a load test calls on its workers."""

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
        """Do nothing: its outcomes have been read, so it is ready."""

    def check(self) -> None:
        """Raise Fatal, with the end of its log, if it has exited."""
        if self._process and (code := self._process.poll()) is not None:
            raise Fatal(f"exited with code {code}; its log ends:\n{last_lines(self._log)}")

    def stop(self) -> None:
        self.end()

    def end(self) -> None:
        if self._process:
            stop(self._process, _GRACE_S)


class RecordingTail:
    """A tail that keeps the records, and raises Fatal after a timeout."""

    def __init__(self, tail: Tail, number: int, clock: Clock, timeout: float) -> None:
        self._tail, self._number, self._clock, self._timeout = tail, number, clock, timeout
        self._deadline = clock.monotonic() + timeout
        self.records: list[RawRecord] = []
        self.reads: list[tuple[float, int]] = []  # seconds, records; without empty reads

    def read(self) -> list[RawRecord]:
        records = self._tail.read()
        self.records += records
        if records:
            self.reads.append((self._clock.monotonic(), len(records)))
        if len(self.records) < self._number and self._clock.monotonic() > self._deadline:
            progress = f"{len(self.records)} of {self._number} records"
            raise Fatal(f"published only {progress} within {self._timeout:g} s")
        return records


def rate_of(reads: Sequence[tuple[float, int]]) -> float:
    """Return records a second, from the end of the first batch of outcomes to the last outcome.

    A program that publishes hundreds of outcomes at once spreads them over several reads. All of
    them belong to the first batch, or the rate would count outcomes without the time of their work.
    A program without pauses has no batches: its rate counts from the first read.

    Args:
        reads: time and number of outcomes of each read, ascending; from at least two moments.
    """
    total, taken, first = sum(count for _, count in reads), 0, 0
    for number, ((now, count), (later, _)) in enumerate(pairwise(reads)):
        taken += count
        if taken > total / 2:  # a pause of a busy machine, too late for a rate
            break
        if later - now > _PAUSE_S:
            first = number
            break
    return sum(count for _, count in reads[first + 1 :]) / (reads[-1][0] - reads[first][0])


def in_order(records: Sequence[RawRecord], number: int) -> list[Scores]:
    """Return the probabilities of records 0 to number - 1; the key is the record's number.

    Raises Fatal if an outcome is missing, duplicated or not a list of labels.
    """
    scores = {int(record.key or b"-1"): _scores(record.value or b"") for record in records}
    if len(records) != number or sorted(scores) != list(range(number)):
        outcomes = f"{len(records)} outcomes of {len(scores)} records"
        raise Fatal(f"published {outcomes}, expected one outcome for each of {number} records")
    return [scores[tag] for tag in range(number)]


def largest_difference(left: Sequence[Scores], right: Sequence[Scores]) -> float:
    """Return the largest difference of a probability; infinite if the labels differ."""
    return max(
        abs(scores[label] - others[label]) if scores.keys() == others.keys() else float("inf")
        for scores, others in zip(left, right, strict=True)
        for label in scores
    )


def _scores(value: bytes) -> Scores:
    try:
        document = json.loads(value)
        labels = document["labels"] if isinstance(document, dict) else document
        return {item["label"]: float(item["score"]) for item in labels}
    except (ValueError, KeyError, TypeError):
        raise Fatal("published a value that is not a list of labels with scores") from None
