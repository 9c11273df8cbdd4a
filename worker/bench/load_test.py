"""Loads one worker with texts, as a backlog or at due times, and measures its outcomes.

Owns: the numbering of the texts, and the measurement of throughput and latency.
Thread: main.
Must not import: torch.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from worker.bench.pinning import Cores, running_on
from worker.bench.usage import CpuMeter, process_seconds
from worker.clock import Clock
from worker.demo.workers import DemoWorkers
from worker.errors import Fatal
from worker.kafka_io.samples import SampleProducer, Tail
from worker.processes import Interrupts

_STALL_S: Final = 180.0  # includes loading the model on a slow machine
_DRAIN_STEP_S: Final = 0.05
_LATENCY_STEP_S: Final = 0.001


class LoadTest:
    """Loads one worker with texts and measures its outcomes.

    Attributes:
        tail: reads the outcomes.
        cold_start_s: seconds from the start of the process until it was ready; 0 if not measured.
    """

    tail: Tail
    cold_start_s = 0.0

    def __init__(
        self,
        producer: SampleProducer,
        interrupts: Interrupts,
        clock: Clock,
        worker_cores: Cores | None = None,
    ) -> None:
        self._producer, self._interrupts, self._clock = producer, interrupts, clock
        self._worker_cores = worker_cores
        self._tags = itertools.count()
        self._workers: DemoWorkers | None = None

    def fill(self, backlog: Sequence[str]) -> None:
        """Send the texts, and wait until the broker has acknowledged them."""
        for text in backlog:
            self._send(text)
        self._until(len(backlog), lambda: len(list(self._producer.acknowledged())), _DRAIN_STEP_S)

    def start(self, workers: DemoWorkers, *, ready: bool) -> None:
        """Start the worker and, if `ready`, wait until it is ready."""
        started = self._clock.monotonic()
        with running_on(self._worker_cores):
            workers.start(1)
        self._workers = workers
        if ready:
            workers.wait_until_ready()
            self.cold_start_s = self._clock.monotonic() - started

    def drained_at(self, records: int, meter: CpuMeter | None = None) -> float:
        """Return records a second, from the first outcomes that are read to the last.

        Args:
            records: records of the backlog.
            meter: told how many records have been drained.

        Raises Fatal if no outcome arrives for minutes, or if all arrive in one read.
        """
        reads: list[tuple[float, int]] = []

        def look() -> int:
            count = len(self.tail.read())
            if count:
                reads.append((self._clock.monotonic(), count))
                if meter:
                    meter.note(sum(count for _, count in reads))
            return count

        self._until(records, look, _DRAIN_STEP_S)
        seconds = reads[-1][0] - reads[0][0]
        if not seconds:
            raise Fatal(
                f"all {records} records arrived in one read, too few for a rate: measure longer"
            )
        return sum(count for _, count in reads[1:]) / seconds

    def latencies(self, texts: Iterable[str], dues: Iterable[float]) -> list[float]:
        """Send each text at its due time; return the milliseconds from then until its outcome.

        Args:
            texts: at least as many as there are due times.
            dues: seconds from now, ascending.
        """
        pending = deque(zip(dues, texts, strict=False))
        started, waiting, latencies = self._clock.monotonic(), dict[int, float](), list[float]()

        def step() -> int:
            now = self._clock.monotonic()
            while pending and started + pending[0][0] <= now:
                due, text = pending.popleft()
                waiting[self._send(text)] = started + due
            tags = [int(record.key or b"-1") for record in self.tail.read()]
            now = self._clock.monotonic()
            answered = [waiting.pop(tag) for tag in tags if tag in waiting]
            latencies.extend((now - due) * 1000 for due in answered)
            return len(answered)

        self._until(len(pending), step, _LATENCY_STEP_S)
        for _ in self._producer.acknowledged():
            pass  # raises if the broker refused a record
        return latencies

    def worker_seconds(self) -> float | None:
        """Return the worker's CPU seconds so far, or None if they are unknown."""
        seconds = [process_seconds(pid) for pid in self._workers.pids] if self._workers else []
        return seconds[0] if seconds else None

    def resident_bytes(self) -> int | None:
        """Return the worker's memory by its own metrics, or None if they lack it."""
        if self._workers is None:
            return None
        (resident,) = self._workers.metric("process_resident_memory_bytes")
        return None if resident is None else int(resident)

    @property
    def urls(self) -> list[str]:
        """Base URL of each worker's metrics and live page."""
        return self._workers.urls if self._workers else []

    def _send(self, text: str) -> int:
        tag = next(self._tags)
        value = json.dumps({"id": str(tag), "text": text}).encode()
        self._producer.send(tag, str(tag).encode(), value, self._clock.wall_ms())
        return tag

    def _until(self, number: int, look: Callable[[], int], pause: float) -> None:
        """Call `look` until its counts add up to `number`."""
        total, last_change = 0, self._clock.monotonic()
        while total < number:
            count = look()
            total += count
            now = self._clock.monotonic()
            last_change = now if count else last_change
            if self._workers:
                self._workers.check()
            if now - last_change > _STALL_S:
                raise Fatal(
                    f"{number - total} of {number} records are outstanding, and none has arrived "
                    f"for {_STALL_S:.0f} s"
                )
            self._interrupts.sleep(pause)
