"""`make bench-variants`: what a setting is worth, on the same backlog, through a broker.

    make bench-variants ARGS="--only cache --rounds 5"

Each question drains one backlog under two or more settings, in turn, for some rounds: the cache
where no text comes twice, where a tenth does, and where four in ten do; one process with all cores
against one process a core; a forward pass by all cores at once against one in parts, side by side;
nobody who looks against Prometheus, an open page, and every micro-batch traced. Prints a table
(standard error) and one JSON object (standard output); writes benchmarks/results/variants.json and
the README's table, unless --only is given. The model is the bundled one unless --model names
another.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.table import Table

from benchmarks import readme
from benchmarks.brokers import some_broker
from benchmarks.observers import Look, collecting, scraping, watching
from benchmarks.recorded import RESULTS, Variant, Variants
from worker.bench.machine import processor
from worker.bench.rig import Rig
from worker.clock import SystemClock
from worker.demo.posts import load_rated
from worker.demo.workers import DemoWorkers
from worker.errors import StreamlabelError
from worker.pool.shares import cores
from worker.processes import Interrupts
from worker.settings import ModelSettings, load

_REPEATS: Final = (0.0, 0.1, 0.4)
_SEED: Final = 1


@dataclass(frozen=True)
class Setting:
    """Flags of the worker, and who looks at it meanwhile."""

    flags: Mapping[str, str]
    look: Look = nullcontext


@dataclass(frozen=True)
class Question:
    """One backlog, and the settings under which it is drained; the first is compared with."""

    name: str
    repeats: float
    variants: Mapping[str, Setting]


def questions() -> list[Question]:
    """All of them, for this machine."""
    no_cache = {"--cache-max-bytes": "0"}
    cache = {"off": Setting(no_cache), "on": Setting({"--cache-max-bytes": "16000000"})}
    found = [Question(f"cache, {share:.0%} repeats", share, cache) for share in _REPEATS]
    many = cores()
    if many > 1:
        split = {
            str(number): Setting(no_cache | {"--processes": str(number)}) for number in (1, many)
        }
        found.append(Question(f"processes on {many} cores", 0.0, split))
        lanes = {
            "by all cores at once": Setting(no_cache | {"--model-lanes": "1"}),
            "in parts, side by side": Setting(no_cache),
        }
        found.append(Question("a forward pass", 0.0, lanes))
    eyes = {
        "nobody": Setting(no_cache),
        "a scrape a second": Setting(no_cache, scraping),
        "an open page": Setting(no_cache, watching),
        "every micro-batch traced": Setting(no_cache | {"--tracing-sample-ratio": "1"}),
    }
    found.append(Question("who looks", 0.0, eyes))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """All questions, one after the other."""
    parser = argparse.ArgumentParser(prog="bench-variants", description=__doc__)
    parser.add_argument(
        "--only", default="", help="questions whose name begins like this; writes no file"
    )
    parser.add_argument("--rounds", type=int, default=3, help="of each variant [3]")
    parser.add_argument("--records", type=int, default=3000, help="in a backlog [3000]")
    parser.add_argument("--model", default="bundled", help="name or folder [bundled]")
    parser.add_argument("--bootstrap-servers", help="a Kafka; else KAFKA_HOME, else the embedded")
    args = parser.parse_args(arguments)
    asked = [question for question in questions() if question.name.startswith(args.only)]
    if not asked:
        names = ", ".join(question.name for question in questions())
        print(f"bench-variants: no question {args.only!r}; there are: {names}", file=sys.stderr)
        return 2
    logging.getLogger("kafka").addHandler(logging.NullHandler())
    try:
        answers = _answers(asked, args)
    except (StreamlabelError, ValueError, OSError) as error:
        print(f"bench-variants: {error}", file=sys.stderr)
        return 1
    cpu, features = processor()
    found = Variants(
        cpu=cpu,
        cores=cores(),
        features=features,
        model=args.model,
        records=args.records,
        rounds=args.rounds,
        variants=tuple(answers),
    )
    _show(found)
    print(found.model_dump_json())
    if args.only:  # some answers would stand in the README as if they were all
        return 0
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "variants.json").write_text(found.model_dump_json(indent=2) + "\n")
    return readme.main([])


def backlog(texts: Sequence[str], records: int, repeats: float) -> list[str]:
    """That many texts, of which that share comes a second time, at random places.

    Raises ValueError where there are not enough different texts.
    """
    fresh = records - int(records * repeats)
    distinct = list(dict.fromkeys(texts))[:fresh]
    if len(distinct) < fresh:
        raise ValueError(f"{fresh} different texts are wanted, there are {len(distinct)}")
    drawn = random.Random(_SEED)
    found = [*distinct, *drawn.choices(distinct, k=records - fresh)]
    drawn.shuffle(found)
    return found


def _answers(asked: Sequence[Question], args: argparse.Namespace) -> list[Variant]:
    clock, texts = SystemClock(), [rated.text for rated in _tweets()]
    with ExitStack() as stack:
        interrupts = stack.enter_context(Interrupts(clock))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="streamlabel-")))
        stack.enter_context(collecting())
        broker = stack.enter_context(some_broker(args.bootstrap_servers))
        given = {"kafka.bootstrap_servers": broker.bootstrap_servers, "model.name": args.model}
        config = folder / "settings.toml"
        config.write_text(f"[model]\nname = {args.model!r}\n")
        rig = _Rig(load(given, environ={}), config, folder, stack, interrupts, clock)
        answers = []
        for question in asked:
            texts_of_it = backlog(texts, args.records, question.repeats)
            rates: dict[str, list[float]] = {name: [] for name in question.variants}
            for turn in range(args.rounds):
                for name, setting in question.variants.items():
                    told = f"{question.name}: {name} ({turn + 1} of {args.rounds})"
                    print(f"bench-variants: {told}", file=sys.stderr, flush=True)
                    rig.flags = setting.flags
                    with rig.load_test(texts_of_it) as test, setting.look(test.urls[0]):
                        rates[name].append(test.drained_at(args.records))
            answers += _judged(question, rates)
    return answers


def _tweets() -> Any:
    return load_rated("tweets", ModelSettings().cache_dir.expanduser())


def _judged(question: Question, rates: Mapping[str, Sequence[float]]) -> list[Variant]:
    medians = {name: statistics.median(found) for name, found in rates.items()}
    first = next(iter(medians.values()))
    return [
        Variant(
            question=question.name,
            name=name,
            records_per_s=medians[name],
            rates=tuple(found),
            ratio=medians[name] / first,
        )
        for name, found in rates.items()
    ]


class _Rig(Rig):
    """Attributes: flags: of the workers to come."""

    flags: Mapping[str, str] = {}

    def workers(self, group: str, names: dict[str, str], folder: Path) -> DemoWorkers:
        command = self._command(group, names)
        command += [word for pair in self.flags.items() for word in pair]
        return DemoWorkers(command, folder, self._interrupts, self._clock)


def _show(found: Variants) -> None:
    table = Table(box=None, pad_edge=False)
    for name in ("question", "setting", "records/s", "to the first"):
        table.add_column(name, justify="left" if name in ("question", "setting") else "right")
    for one in found.variants:
        table.add_row(one.question, one.name, f"{one.records_per_s:.1f}", f"{one.ratio:.2f}")
    Console(stderr=True, highlight=False).print(table)


if __name__ == "__main__":
    sys.exit(main())
