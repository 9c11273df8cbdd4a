"""The worker under test: `streamlabel run` in a process of its own, with faults on demand.

It is production code with three exceptions. The model is wrapped, so that it can be slow, fail or
run out of memory on demand. The wall clock can be moved. Every record between its poll and the
commit of its offset is counted, because a hard kill may duplicate it. Orders and counts are in
memory that is shared with the harness.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import worker.clock
import worker.inference.loading
import worker.runtime.assembly
import worker.runtime.launch
from tests.chaos import bugs
from worker.clock import SystemClock
from worker.core.model import Classifier, Step, Synchronous, Tokeniser, no_step
from worker.core.offsets import OffsetTracker
from worker.core.records import ModelInput, Partition, Prediction, RawRecord
from worker.errors import OutOfMemory
from worker.kafka_io.publisher import Publisher
from worker.kafka_io.sink import KafkaSink
from worker.runtime.rebalance import Rebalance
from worker.settings import load

POISON = "poison"  # a text with this word breaks the model
_SLOW = 0.02  # seconds a text
_MOST_OF = 0.7  # of the bound of a drain; the rest is for the commit
_FITS = 4  # texts that fit while memory is short


class Orders(ctypes.Structure):
    """Orders from the harness to a worker, and counts of records that may be duplicated.

    `lost` records may be duplicated in any case, `left` and `uncommitted` ones only if the exit
    code is not 0. `replaced` counts producers, `in_flight` texts between the tokenizer and the end
    of their forward pass, `busy_revocations` revocations of partitions with records in flight.
    `slow_by` is seconds a text. Times are seconds of the monotonic clock, which all processes of
    the machine share.
    """

    _fields_ = (
        ("slow_until", ctypes.c_double),
        ("short_of_memory_until", ctypes.c_double),
        ("clock_jump_until", ctypes.c_double),
        ("clock_jump", ctypes.c_double),
        ("clock_skew", ctypes.c_double),
        ("slow_by", ctypes.c_double),
        ("crash", ctypes.c_int),
        ("uncommitted", ctypes.c_int),
        ("lost", ctypes.c_int),
        ("left", ctypes.c_int),
        ("replaced", ctypes.c_int),
        ("in_flight", ctypes.c_int),
        ("busy_revocations", ctypes.c_int),
    )


def main(
    flags: Mapping[str, Any],
    config: Path | None,
    orders: Any,
    log: Path,
    bug: str | None,
    harness: int,
) -> None:
    """Run the worker; the target of the process.

    Args:
        flags: settings by path.
        config: file with further settings, which SIGHUP makes the worker read again.
        orders: `Orders` in shared memory.
        log: takes standard output and standard error.
        bug: planted first, if any.
        harness: process id; the worker ends when that process ends.
    """
    threading.Thread(target=_die_with, args=(harness,), daemon=True).start()
    with log.open("ab") as out:
        os.dup2(out.fileno(), sys.stdout.fileno())
        os.dup2(out.fileno(), sys.stderr.fileno())
    _install(orders)
    if bug:
        bugs.plant(bug)
    from worker.cli import run

    try:
        code = run.run(argparse.Namespace(), load(flags, config, environ={}))
    except Exception as error:  # noqa: BLE001 - as the command line does
        print(f"streamlabel: {error}", file=sys.stderr, flush=True)
        code = 1
    os._exit(code)  # even if a fault left threads behind


def _die_with(harness: int) -> None:
    clock = SystemClock()
    while True:
        clock.sleep(1.0)
        try:
            os.kill(harness, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGKILL)


def _install(orders: Any) -> None:
    clock = SystemClock()

    class JumpingClock(SystemClock):
        def wall_ms(self) -> int:
            jumps = self.monotonic() < orders.clock_jump_until
            off = orders.clock_skew + (orders.clock_jump if jumps else 0.0)
            return super().wall_ms() + int(off * 1000)

    real_load = worker.inference.loading.load

    def wrapped(*args: Any, **more: Any) -> tuple[Any, Any]:
        model = FaultyModel(*real_load(*args, **more), orders, clock)
        return model, model

    worker.clock.SystemClock = JumpingClock  # type: ignore[misc]
    worker.inference.loading.load = wrapped
    assembly: Any = worker.runtime.assembly
    assembly.OffsetTracker = functools.partial(CountingTracker, orders)
    assembly.Rebalance = functools.partial(CountingRebalance, orders)
    launch: Any = worker.runtime.launch
    launch.KafkaSink = functools.partial(CountingSink, orders)


class FaultyModel(Synchronous):
    """Wraps the real tokenizer and classifier, and fails on demand."""

    def __init__(
        self, tokeniser: Tokeniser, classifier: Classifier, orders: Any, clock: SystemClock
    ) -> None:
        self._tokeniser, self._classifier = tokeniser, classifier
        self._orders, self._clock = orders, clock
        self._poisoned: deque[tuple[int, ...]] = deque(maxlen=1000)
        self.card = classifier.card

    def warm_up(self) -> None:
        self._classifier.warm_up()

    def tokenise(self, texts: Sequence[str], _: Step = no_step) -> list[ModelInput]:
        inputs = self._tokeniser.tokenise(texts)
        for model_input in inputs:
            for ids, position in zip(model_input.ids, model_input.positions, strict=True):
                if POISON in texts[position]:
                    self._poisoned.append(ids)
        self._orders.in_flight += sum(len(one.ids) for one in inputs)
        return inputs

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        now, texts = self._clock.monotonic(), len(model_input.ids)
        if self._orders.crash:
            raise SystemExit("ordered to crash")
        if any(ids in self._poisoned for ids in model_input.ids):
            raise ValueError("poison")
        if now < self._orders.short_of_memory_until and texts > _FITS:
            raise OutOfMemory(f"{texts} texts do not fit")
        if now < self._orders.slow_until:
            self._clock.sleep((self._orders.slow_by or _SLOW) * texts)
        predictions = self._classifier.predict(model_input)
        self._orders.in_flight -= texts
        return predictions

    def __getattr__(self, name: str) -> Any:
        return getattr(self._classifier, name)


class CountingTracker(OffsetTracker):
    """Counts records that were polled and not committed, and those of them that were dropped."""

    def __init__(self, orders: Any) -> None:
        super().__init__()
        self._orders = orders
        self._polled: dict[Partition, deque[int]] = {}
        self.dropped = 0

    def _report(self) -> None:
        self._orders.uncommitted = sum(map(len, self._polled.values()))

    def track(self, record: RawRecord) -> Any:
        tracked = super().track(record)
        topic, partition, offset, _ = record.ref
        if Partition(topic, partition) in self._polled:
            self._polled[Partition(topic, partition)].append(offset)
            self._report()
        return tracked

    def assign(self, partition: Partition, epoch: int) -> None:
        super().assign(partition, epoch)
        self._polled[partition] = deque()

    def mark_committed(self, offsets: Mapping[Partition, int]) -> None:
        super().mark_committed(offsets)
        for partition, offset in offsets.items():
            polled = self._polled.get(partition, deque())
            while polled and polled[0] < offset:
                polled.popleft()
        self._report()

    def forget(self, refs: Any) -> None:
        refs = list(refs)
        super().forget(refs)
        forgotten = {(Partition(ref.topic, ref.partition), ref.offset) for ref in refs}
        for partition, polled in self._polled.items():
            kept = (offset for offset in polled if (partition, offset) not in forgotten)
            self._polled[partition] = deque(kept)
        self._report()

    def revoke(self, partition: Partition) -> None:
        super().revoke(partition)
        self.dropped += len(self._polled.pop(partition, ()))
        self._report()


class CountingRebalance(Rebalance):
    """Counts records that were given up and may be duplicated by another worker.

    These are records of lost partitions, and records that a drain gave up at its bound, which a
    stop sets to zero. Records left by a drain before its bound are not counted, because that is a
    fault.
    """

    def __init__(self, orders: Any, offsets: CountingTracker, *args: Any, **more: Any) -> None:
        super().__init__(offsets, *args, **more)
        self._orders, self._counted = orders, offsets

    def on_lost(self, partitions: Iterable[Partition]) -> None:
        before = self._counted.dropped
        super().on_lost(partitions)
        self._orders.lost += self._counted.dropped - before

    def on_revoked(self, partitions: Iterable[Partition]) -> None:
        before, started = self._counted.dropped, self._clock.monotonic()
        revoked = list(partitions)
        self._orders.busy_revocations += bool(self._counted.pending(revoked))
        super().on_revoked(revoked)
        dropped = self._counted.dropped - before
        bound = min(self._drain_timeout, self.latest_deadline - started)
        if bound <= 0:
            self._orders.left += dropped
        elif self._clock.monotonic() - started > bound * _MOST_OF:
            self._orders.lost += dropped


class CountingSink(KafkaSink):
    """Counts records that were sent again because a producer had stopped sending."""

    def __init__(self, orders: Any, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._orders = orders

    def _replace_publisher(self, successor: Publisher) -> None:
        self._orders.replaced += 1
        # Part of a waiting batch may have been handed over.
        self._orders.lost += sum(len(batch.unacknowledged) for batch in self.unacknowledged_batches)
        super()._replace_publisher(successor)
