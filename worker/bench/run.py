"""The bench, from its first process to its table; imported when the command runs.

Owns: the order of the measurements and the figures computed from them.
Thread: main.
Must not import: torch (another process measures the engine).
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Final

from rich.console import Console

from worker.bench.arrivals import ALONE_GAP_S, arrivals
from worker.bench.drains import Drains
from worker.bench.engine_process import EngineProcess
from worker.bench.figures import (
    BenchResult,
    EngineResult,
    Latency,
    Load,
    MachineInfo,
    percentile,
)
from worker.bench.load_test import LoadTest
from worker.bench.machine import processor
from worker.bench.pinning import running_on, shares
from worker.bench.plot import draw, require_plotting
from worker.bench.rig import Rig, as_toml
from worker.bench.table import result_table
from worker.bench.texts import read_texts, repeated
from worker.clock import SystemClock
from worker.core.counted import counted
from worker.demo.fallback_posts import fallback_posts
from worker.demo.helpers import Helpers
from worker.demo.posts import SampleUnavailable
from worker.errors import SettingsError
from worker.limits import cores
from worker.processes import Interrupts
from worker.settings import Loaded

LOADS: Final = (0.1, 0.5, 0.9)
_MAX_RECORDS: Final = 200_000
_WARM_UP: Final = 3  # single texts that are not counted: they open connections


@dataclass(frozen=True)
class _BenchSize:
    """The number of texts, rounds and seconds to measure."""

    texts: int
    rounds: int
    seconds: float
    alone: int


def perform(args: argparse.Namespace, loaded: Loaded, options: tuple[str, ...]) -> int:
    """Measure, print and write the figures, and return 0.

    Args:
        args: the command's own flags.
        loaded: the settings.
        options: prefixes of the settings that the bench passes to its processes.
    """
    if loaded.settings.models:
        raise SettingsError(
            "streamlabel bench measures one model at a time: leave [models.NAME] out, and name one "
            "with --model"
        )
    if args.plot:
        require_plotting(args.plot)
    clock = SystemClock()
    # Keeps the client's log off the screen.
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    console = Console(stderr=True, highlight=False)

    def say(message: str) -> None:
        console.print(f"bench: {message}", markup=False, soft_wrap=True)

    with Interrupts(clock) as interrupts, ExitStack() as stack:
        bench = _BenchRun(args, loaded, interrupts, stack, clock, say, options=options).bench()
    Console(highlight=False).print(result_table(bench))
    if args.json:
        args.json.write_text(bench.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if args.plot:
        draw(bench, args.plot)
    return 0


class _BenchRun:
    def __init__(
        self,
        args: argparse.Namespace,
        loaded: Loaded,
        interrupts: Interrupts,
        stack: ExitStack,
        clock: SystemClock,
        say: Callable[[str], None],
        *,
        options: tuple[str, ...],
    ) -> None:
        self._args, self._loaded, self._say = args, loaded, say
        self._interrupts, self._stack, self._clock = interrupts, stack, clock
        seconds = args.seconds or (5.0 if args.quick else 20.0)
        full, quick = _BenchSize(512, 3, seconds, 20), _BenchSize(128, 1, seconds, 5)
        self._size = quick if args.quick else full
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))
        self._helpers = Helpers(self._folder, stack, interrupts, clock)
        self._config = self._folder / "settings.toml"
        self._config.write_text(as_toml(loaded, options), encoding="utf-8")
        self._cores, self._shares = cores(), shares(args.client_cores)
        # Also what starts later is not on the worker's cores: the embedded broker, the clients.
        stack.enter_context(running_on(self._shares.clients if self._shares else None))

    def bench(self) -> BenchResult:
        texts, source = self._texts()
        engine = self._engine(texts)
        self._say("connecting to the broker")
        rig = Rig(
            self._loaded,
            self._config,
            self._folder,
            self._stack,
            self._interrupts,
            self._clock,
            shares=self._shares,
        )
        drains = Drains(engine, rig, texts, self._say)
        for number in range(self._size.rounds):
            drains.turn(f"{number + 1} of {self._size.rounds}", self._records)
        self._say("measuring the engine's single texts")
        model, result = engine.result()
        end_to_end = drains.end_to_end(self._args.client_cores)
        starts = [self._cold_start(rig) for _ in range(self._size.rounds - 1)]
        with rig.load_test() as test:
            starts.append(test.cold_start_s)
            latency = self._latency(test, texts, result, end_to_end.records_per_s)
        return BenchResult(
            version=version("streamlabel"),
            quick=self._args.quick,
            delivery=self._loaded.settings.delivery,
            commit_interval_s=self._loaded.settings.commit_every,
            texts_from=source,
            machine=_machine(rig.broker, self._cores),
            model=model,
            engine=result,
            end_to_end=end_to_end,
            latency=latency,
            cold_start_s=statistics.median(starts),
            resident_bytes=drains.resident_bytes,
            date=datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC).date().isoformat(),
        )

    def _texts(self) -> tuple[list[str], str]:
        if self._args.texts:
            return read_texts(self._args.texts), self._args.texts.name
        self._say("getting the rated tweets (cached for the next run)")
        try:
            cache_dir = self._loaded.settings.model.cache_dir.expanduser()
            return [post.text for post in self._helpers.tweets(cache_dir)], "tweets"
        except SampleUnavailable as error:
            self._say(f"can't get the tweets ({error}); using the posts of the package")
            return [post.text for post in fallback_posts()], "fallback posts"

    def _engine(self, texts: Sequence[str]) -> EngineProcess:
        size, number = self._size, self._size.texts
        self._say(
            f"loading the model; {counted(size.rounds, 'round')} of {number} texts each for the "
            "engine and pipeline()"
        )
        file = self._folder / "texts.json"
        file.write_text(json.dumps(texts), encoding="utf-8")
        arguments = ["--config", str(self._config), "--texts", str(file)]
        arguments += ["--number", str(number), "--alone", str(size.alone)]
        arguments += [] if self._args.quick else ["--sweep"]
        cores = self._shares.model if self._shares else None
        return EngineProcess(arguments, self._folder, cores, self._stack, self._interrupts)

    def _records(self, texts_per_s: float) -> int:
        """Return the records of a drain that takes as long as it should at this speed."""
        window = min(self._loaded.settings.batch.max_records, self._size.texts)
        return int(min(max(texts_per_s * self._size.seconds, 8 * window), _MAX_RECORDS))

    def _cold_start(self, rig: Rig) -> float:
        self._say("measuring a worker's cold start")
        with rig.load_test() as test:
            return test.cold_start_s

    def _latency(
        self, test: LoadTest, texts: Sequence[str], engine: EngineResult, capacity: float
    ) -> Latency:
        alone_ms = self._alone(test, texts)
        loads = tuple(self._load(test, texts, share, share * capacity) for share in LOADS)
        p99 = next(load.p99 for load in loads if load.share == 0.5)
        return Latency(
            loads=loads,
            alone_ms=alone_ms,
            alone_overhead_ms=alone_ms - engine.one_text_s * 1000,
            p99_to_window=p99 / (engine.configured.window_s * 1000) if p99 else None,
        )

    def _alone(self, test: LoadTest, texts: Sequence[str]) -> float:
        self._say(f"measuring a single text on an idle worker, {self._size.alone} times")
        latencies = []
        # The same texts as those of the bare forward passes.
        same = repeated(texts, self._size.alone)
        for text in [*same[:1] * _WARM_UP, *same]:
            self._interrupts.sleep(ALONE_GAP_S)
            latencies += test.latencies([text], [0.0])
        return statistics.median(latencies[_WARM_UP:])

    def _load(self, test: LoadTest, texts: Sequence[str], share: float, rate: float) -> Load:
        seconds = self._size.seconds
        self._say(f"sending at {share:.0%} load, {rate:.1f} texts/s for {seconds:g} s")
        dues = list(arrivals(rate, seconds))
        latencies = test.latencies(repeated(texts, len(dues)), dues)
        p50, p99, p999 = (percentile(latencies, part) for part in (0.5, 0.99, 0.999))
        return Load(share=share, rate=rate, records=len(latencies), p50=p50, p99=p99, p999=p999)


def _machine(broker: str, usable: int) -> MachineInfo:
    cpu, features = processor()
    return MachineInfo(
        cpu=cpu,
        cores=usable,
        features=features,
        python=python_version(),
        torch=version("torch"),
        broker=broker,
    )
