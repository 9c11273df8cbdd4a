"""A bench from its first process to its table; `bench` loads it only when it runs.

Owns: the order of the measurements and what is made of them. Runs on: the main thread.
Must not import: torch (the engine is measured by a process of its own, and runs in the workers).
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
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Final

from rich.console import Console

from worker.bench.arrivals import ALONE_GAP_S, arrivals
from worker.bench.figures import (
    Bench,
    EndToEnd,
    Engine,
    Latency,
    Load,
    Machine,
    Model,
    percentile,
)
from worker.bench.machine import processor
from worker.bench.plot import draw, require_plotting
from worker.bench.rig import LoadTest, Rig, as_toml
from worker.bench.table import for_people
from worker.bench.texts import read_texts, repeated
from worker.clock import SystemClock
from worker.demo.fallback_posts import fallback_posts
from worker.demo.helpers import Helpers
from worker.demo.posts import SampleUnavailable
from worker.pool.shares import cores
from worker.processes import Interrupts
from worker.settings import Loaded

LOADS: Final = (0.1, 0.5, 0.9)
_MOST_RECORDS: Final = 200_000
_WARM_UP: Final = 3  # texts sent alone whose time is not counted: first connections and the like


@dataclass(frozen=True)
class _Length:
    """How much is measured: enough for the medians, or enough to see that it works."""

    texts: int
    rounds: int
    seconds: float
    alone: int


def perform(args: argparse.Namespace, loaded: Loaded, options: tuple[str, ...]) -> int:
    """Measure, print, write; returns 0.

    Args:
        args: the command's own flags.
        loaded: the settings.
        options: prefixes of the settings that the bench hands on to its processes.
    """
    if args.plot:
        require_plotting(args.plot)
    clock = SystemClock()
    logging.getLogger("kafka").addHandler(logging.NullHandler())  # not across the screen
    told = Console(stderr=True, highlight=False)

    def say(line: str) -> None:
        told.print(f"bench: {line}", markup=False, soft_wrap=True)

    with Interrupts(clock) as interrupts, ExitStack() as stack:
        bench = _Run(args, loaded, interrupts, stack, clock, say, options=options).bench()
    Console(highlight=False).print(for_people(bench))
    if args.json:
        args.json.write_text(bench.model_dump_json(indent=2) + "\n", encoding="utf-8")
    if args.plot:
        draw(bench, args.plot)
    return 0


class _Run:
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
        self._length = _Length(128, 1, seconds, 5) if args.quick else _Length(512, 3, seconds, 20)
        self._folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))
        self._helpers = Helpers(self._folder, stack, interrupts, clock)
        self._config = self._folder / "settings.toml"
        self._config.write_text(as_toml(loaded, options), encoding="utf-8")

    def bench(self) -> Bench:
        texts, source = self._texts()
        model, engine = self._engine(texts)
        self._say("starting the broker's side")
        rig = Rig(
            self._loaded, self._config, self._folder, self._stack, self._interrupts, self._clock
        )
        end_to_end, resident = self._drains(rig, texts, engine)
        starts = [self._cold_start(rig) for _ in range(self._length.rounds - 1)]
        with rig.line() as line:
            starts.append(line.cold_start_s)
            latency = self._latency(line, texts, engine, end_to_end.records_per_s)
        return Bench(
            version=version("streamlabel"),
            quick=self._args.quick,
            delivery=self._loaded.settings.delivery,
            commit_interval_s=self._loaded.settings.commit_every,
            texts_from=source,
            machine=_machine(rig.broker),
            model=model,
            engine=engine,
            end_to_end=end_to_end,
            latency=latency,
            cold_start_s=statistics.median(starts),
            resident_bytes=resident,
        )

    def _texts(self) -> tuple[list[str], str]:
        if self._args.texts:
            return read_texts(self._args.texts), self._args.texts.name
        self._say("getting the rated tweets (kept for the next time)")
        try:
            cache_dir = self._loaded.settings.model.cache_dir.expanduser()
            return [post.text for post in self._helpers.tweets(cache_dir)], "tweets"
        except SampleUnavailable as error:
            self._say(f"no tweets: {error}; taking the posts that come with streamlabel")
            return [post.text for post in fallback_posts()], "fallback posts"

    def _engine(self, texts: Sequence[str]) -> tuple[Model, Engine]:
        number, rounds = self._length.texts, self._length.rounds
        self._say(f"the engine alone, beside pipeline(): {number} texts, {rounds} round(s)")
        file = self._folder / "texts.json"
        file.write_text(json.dumps(repeated(list(texts), number)), encoding="utf-8")
        command = ["-P", "-m", "worker.bench.engine", "--config", str(self._config)]
        command += ["--texts", str(file), "--rounds", str(rounds)]
        _, lines = self._helpers.output_of(
            "measuring the engine", command + ([] if self._args.quick else ["--sweep"])
        )
        found = json.loads(lines[-1])
        return Model.model_validate(found["model"]), Engine.model_validate(found["engine"])

    def _drains(
        self, rig: Rig, texts: Sequence[str], engine: Engine
    ) -> tuple[EndToEnd, int | None]:
        wanted = engine.configured.texts_per_s * self._length.seconds
        records = int(min(max(wanted, 8 * engine.configured.window), _MOST_RECORDS))
        rates: list[float] = []
        resident: int | None = None
        for number in range(self._length.rounds):
            self._say(f"draining {records} records, {number + 1} of {self._length.rounds}")
            with rig.line(repeated(list(texts), records)) as line:
                rates.append(line.drained_at(records))
                resident = line.resident_bytes()
        median = statistics.median(rates)
        to_engine = median / engine.configured.texts_per_s
        found = EndToEnd(
            records=records, rates=tuple(rates), records_per_s=median, to_engine=to_engine
        )
        return found, resident

    def _cold_start(self, rig: Rig) -> float:
        self._say("a worker's cold start")
        with rig.line() as line:
            return line.cold_start_s

    def _latency(
        self, line: LoadTest, texts: Sequence[str], engine: Engine, capacity: float
    ) -> Latency:
        alone_ms = self._alone(line, texts)
        loads = tuple(self._load(line, texts, share, share * capacity) for share in LOADS)
        half = next(load.p99 for load in loads if load.share == 0.5)
        return Latency(
            loads=loads,
            alone_ms=alone_ms,
            alone_overhead_ms=alone_ms - engine.one_text_s * 1000,
            p99_to_window=half / (engine.configured.window_s * 1000) if half else None,
        )

    def _alone(self, line: LoadTest, texts: Sequence[str]) -> float:
        self._say(f"one text alone on an idle worker, {self._length.alone} times")
        found = []
        # The same texts as those whose bare forward pass was timed.
        same = repeated(list(texts), self._length.texts)[: self._length.alone]
        for text in [*same[:1] * _WARM_UP, *same]:
            self._interrupts.sleep(ALONE_GAP_S)
            found += line.latencies([text], [0.0])
        return statistics.median(found[_WARM_UP:])

    def _load(self, line: LoadTest, texts: Sequence[str], share: float, rate: float) -> Load:
        self._say(f"{share:.0%} load, {rate:.1f} texts/s for {self._length.seconds:g} s")
        dues = list(arrivals(rate, self._length.seconds))
        found = line.latencies(repeated(list(texts), len(dues)), dues)
        p50, p99, p999 = (percentile(found, share) for share in (0.5, 0.99, 0.999))
        return Load(share=share, rate=rate, records=len(found), p50=p50, p99=p99, p999=p999)


def _machine(broker: str) -> Machine:
    cpu, features = processor()
    return Machine(
        cpu=cpu,
        cores=cores(),
        features=features,
        python=python_version(),
        torch=version("torch"),
        broker=broker,
    )
