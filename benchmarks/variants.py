"""Measures the effect of a setting on throughput, on the same backlog, through a broker.

    python -m benchmarks.variants --only cache --rounds 5

Each comparison drains one backlog under two or more settings, in turns, for some rounds:

* the cache, with 0, 10 and 40 % repeated texts;
* one process with all cores, and one process a core;
* a forward pass on all cores at once, and in parallel parts;
* the number types that the processor computes in natively;
* one, two and three models in one worker, with its memory and its cold start;
* no observer, Prometheus, an open page, and every micro-batch traced.

Prints a table to stderr and one JSON object to stdout; without --only, also writes
variants.json in the results of this machine and updates the documentation.

Owns: variants.json.
Thread: main.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple, get_args

from rich.console import Console
from rich.table import Table

from benchmarks import docs
from benchmarks.brokers import some_broker
from benchmarks.machines import here, provenance
from benchmarks.observers import Observer, collecting, scraping, watching
from benchmarks.recorded import Variant, Variants
from worker.bench.machine import processor
from worker.bench.rig import Rig
from worker.clock import SystemClock
from worker.demo.posts import load_rated
from worker.demo.workers import DemoWorkers
from worker.errors import StreamlabelError
from worker.limits import cores
from worker.processes import Interrupts
from worker.settings import ModelSettings, load

_REPEATED_SHARES: Final = (0.0, 0.1, 0.4)
_SEED: Final = 1
# The features of a processor that computes in a number type; none are needed for float32.
_NATIVE: Final = {
    "float32": set[str](),
    "bfloat16": {"amx_bf16", "avx512_bf16", "bf16"},
    "int8": {"amx_int8", "avx512_vnni", "avx_vnni"},
}


@dataclass(frozen=True)
class Setting:
    """Flags of the worker, its models, and its observer during the measurement.

    Attributes:
        models: how many models it runs, each of the same checkpoint.
    """

    flags: Mapping[str, str]
    observer: Observer = nullcontext
    models: int = 1


@dataclass(frozen=True)
class Comparison:
    """A backlog and the settings to drain it with; ratios are relative to the first setting.

    Attributes:
        starts: whether memory and cold start are measured too.
    """

    name: str
    repeats: float
    settings: Mapping[str, Setting]
    starts: bool = False


def comparisons() -> list[Comparison]:
    """Return all comparisons for this machine."""
    no_cache = {"--cache-max-bytes": "0"}
    cache = {"off": Setting(no_cache), "on": Setting({"--cache-max-bytes": "16000000"})}
    result = [Comparison(f"cache, {share:.0%} repeats", share, cache) for share in _REPEATED_SHARES]
    number = cores()
    if number > 1:
        processes = {
            str(count): Setting(no_cache | {"--processes": str(count)}) for count in (1, number)
        }
        result.append(Comparison(f"processes on {number} cores", 0.0, processes))
        lanes = {
            "all cores at once": Setting(no_cache | {"--model-lanes": "1"}),
            "parallel parts": Setting(no_cache),
        }
        result.append(Comparison("forward pass", 0.0, lanes))
    dtypes = {dtype: Setting(no_cache | {"--model-dtype": dtype}) for dtype in native_dtypes()}
    if len(dtypes) > 1:
        result.append(Comparison("number type", 0.0, dtypes))
    models = {str(n): Setting(no_cache, models=n) for n in (1, 2, 3)}
    result.append(Comparison("models in one worker", 0.0, models, starts=True))
    observers = {
        "none": Setting(no_cache),
        "a scrape a second": Setting(no_cache, scraping),
        "an open page": Setting(no_cache, watching),
        "every micro-batch traced": Setting(no_cache | {"--tracing-sample-ratio": "1"}),
    }
    result.append(Comparison("observer", 0.0, observers))
    return result


def native_dtypes() -> list[str]:
    """Return the number types that this version has and the processor computes in natively."""
    known = get_args(ModelSettings.model_fields["dtype"].annotation)
    _, features = processor()
    return [
        dtype
        for dtype, needed in _NATIVE.items()
        if dtype in known and (not needed or needed & set(features))
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all comparisons, one after the other."""
    parser = argparse.ArgumentParser(
        prog="benchmarks.variants", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument(
        "--only", default="", metavar="PREFIX", help="comparisons to run; writes no file [all]"
    )
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each setting [3]")
    parser.add_argument("--records", type=int, default=3000, help="records in a backlog [3000]")
    parser.add_argument("--model", default="bundled", help="name or folder [bundled]")
    parser.add_argument(
        "--bootstrap-servers", help="a running Kafka [KAFKA_HOME, or the embedded broker]"
    )
    args = parser.parse_args(arguments)
    chosen = [item for item in comparisons() if item.name.startswith(args.only)]
    if not chosen:
        names = ", ".join(item.name for item in comparisons())
        print(
            f"benchmarks.variants: --only {args.only!r} matches none of: {names}", file=sys.stderr
        )
        return 2
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    try:
        variants = _measure(chosen, args)
    except (StreamlabelError, ValueError, OSError) as error:
        print(f"benchmarks.variants: {error}", file=sys.stderr)
        return 1
    result = Variants(
        **provenance(),
        model=args.model,
        records=args.records,
        rounds=args.rounds,
        variants=tuple(variants),
    )
    _show(result)
    print(result.model_dump_json())
    if args.only:  # the file holds complete results only
        return 0
    (here() / "variants.json").write_text(result.model_dump_json(indent=2) + "\n")
    return docs.main([])


def backlog(texts: Sequence[str], records: int, repeats: float) -> list[str]:
    """Return `records` texts, a share of which repeats others at random positions.

    Raises ValueError if there are too few different texts.
    """
    needed = records - int(records * repeats)
    distinct = list(dict.fromkeys(texts))[:needed]
    if len(distinct) < needed:
        raise ValueError(f"the backlog needs {needed} different texts, there are {len(distinct)}")
    generator = random.Random(_SEED)
    shuffled = [*distinct, *generator.choices(distinct, k=records - needed)]
    generator.shuffle(shuffled)
    return shuffled


def _measure(chosen: Sequence[Comparison], args: argparse.Namespace) -> list[Variant]:
    clock, texts = SystemClock(), [rated.text for rated in _tweets()]
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts(clock))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))
        stack.enter_context(collecting())
        broker = stack.enter_context(some_broker(args.bootstrap_servers))
        values = {"kafka.bootstrap_servers": broker.bootstrap_servers, "model.name": args.model}
        config = folder / "settings.toml"
        rig = FlaggedRig(load(values, environ={}), config, folder, stack, interrupts, clock)
        variants = []
        for comparison in chosen:
            records = backlog(texts, args.records, comparison.repeats)
            rounds: dict[str, list[Round]] = {name: [] for name in comparison.settings}
            for turn in range(args.rounds):
                for name, setting in comparison.settings.items():
                    progress = f"{comparison.name}: {name} ({turn + 1} of {args.rounds})"
                    print(f"benchmarks.variants: {progress}", file=sys.stderr, flush=True)
                    rig.flags = setting.flags
                    config.write_text(model_tables(args.model, setting.models))
                    rounds[name].append(_round(rig, setting, records, starts=comparison.starts))
            variants += _variants(comparison, rounds)
    return variants


def model_tables(model: str, number: int) -> str:
    """Return the settings of one model, or of several of the same checkpoint."""
    tables = ["model"] if number == 1 else [f"models.m{n}" for n in range(1, number + 1)]
    return "".join(f"[{table}]\nname = {model!r}\n" for table in tables)


class Round(NamedTuple):
    """The figures of one round; memory and cold start only if they are asked for."""

    records_per_s: float
    memory: int | None = None
    cold_start_s: float | None = None


def _round(rig: FlaggedRig, setting: Setting, records: Sequence[str], *, starts: bool) -> Round:
    with rig.load_test(records) as test, setting.observer(test.urls[0]):
        rate = test.drained_at(len(records))
        memory = test.resident_bytes()
    if not starts:
        return Round(rate)
    with rig.load_test() as test:
        return Round(rate, memory, test.cold_start_s)


def _tweets() -> Any:
    return load_rated("tweets", ModelSettings().cache_dir.expanduser())


def _variants(comparison: Comparison, rounds: Mapping[str, Sequence[Round]]) -> list[Variant]:
    rates = {name: [one.records_per_s for one in each] for name, each in rounds.items()}
    medians = {name: statistics.median(values) for name, values in rates.items()}
    first = next(iter(medians.values()))
    return [
        Variant(
            question=comparison.name,
            name=name,
            records_per_s=medians[name],
            rates=tuple(rates[name]),
            ratio=medians[name] / first,
            memory_mib=_median(None if m is None else m / 2**20 for _, m, _ in each),
            cold_start_s=_median(seconds for *_, seconds in each),
        )
        for name, each in rounds.items()
    ]


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return round(statistics.median(known), 1) if known else None


class FlaggedRig(Rig):
    """A rig that passes further flags to its workers.

    Attributes:
        flags: for workers that are started from now on.
    """

    flags: Mapping[str, str] = {}

    def workers(self, group: str, names: dict[str, str], folder: Path) -> DemoWorkers:
        command = self._command(group, names)
        command += [argument for pair in self.flags.items() for argument in pair]
        return DemoWorkers(command, folder, self._interrupts, self._clock)


def _show(result: Variants) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("comparison", "setting"):
        table.add_column(name)
    for name in ("records/s", "relative to the first", "memory, MiB", "cold start, s"):
        table.add_column(name, justify="right")
    for item in result.variants:
        sizes = [
            "" if size is None else f"{size:.1f}" for size in (item.memory_mib, item.cold_start_s)
        ]
        rate = f"{item.records_per_s:.1f}"
        table.add_row(item.question, item.name, rate, f"{item.ratio:.2f}", *sizes)
    Console(stderr=True, highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
