"""Measures the cost of a second model, and compares its flips with a count without a worker."""

from __future__ import annotations

import json
import random
import re
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.kube.verdicts import Failed
from tests.proofs.ground import Ground
from tests.proofs.registry import Proved, proof
from tests.support.models import make_checkpoint
from tests.support.workers import WorkerProcess, produce, read
from worker.bench.usage import process_seconds
from worker.clock import SystemClock
from worker.core.shadow import is_chosen
from worker.demo.fallback_posts import fallback_posts
from worker.inference.loading import load
from worker.kafka_io.admin import Admin
from worker.limits import cores
from worker.settings import KafkaSettings, ModelSettings

SHARE = 0.1
_COMPARING = 2  # of streamlabel_shadow_state
_MANY = 10_000  # records from which a rate means something
_TURNS = ("off", "on", "on", "off", "on", "off", "off", "on")
_FEW_TURNS = ("off", "on")
_MIDDLE = (0.1, 0.9)  # of a turn's records, between which it is measured
_TICK = 0.01  # seconds: the least that the kernel tells of CPU time (proc(5), USER_HZ)
_FLIP = re.compile(
    r'^streamlabel_shadow_flips_total{.*from="([^"]*)",to="([^"]*)"} ([\d.]+)$', re.MULTILINE
)


class _Turn(NamedTuple):
    """The middle of a turn: records a second, and CPU seconds for 1,000 records."""

    rate: float
    cpu: float


@proof(deliveries=["at_least_once"])
def shadow(ground: Ground) -> Proved:
    """A shadow on 10 % of the texts: its cost, and its flips against a count without a worker."""
    stream = _Stream(ground)
    order = _TURNS if ground.order.records >= _MANY else _FEW_TURNS
    part = ground.order.records // (len(order) + 2)
    turns: dict[str, list[_Turn]] = {"off": [], "on": []}
    for kind in order:
        turns[kind].append(stream.turn(part, compared=kind == "on"))
    flips, texts = stream.flips(ground.order.records - stream.produced)
    figures = _cost(turns) | {"texts": float(texts), "flips": float(flips.total())}
    return Proved(
        f"{figures['throughput_ratio']:.3f} of the throughput with a shadow of the same size on "
        f"{SHARE:.0%}; {flips.total():,} flips in {texts:,} texts, as counted without a worker",
        ground.audit(),
        stream.produced,
        figures=figures,
    )


def _cost(turns: dict[str, list[_Turn]]) -> dict[str, float]:
    """Return the medians of the ratios between neighbouring turns, so that a slow hour cancels."""
    pairs = list(zip(turns["on"], turns["off"], strict=True))
    return {
        "throughput_ratio": statistics.median(on.rate / off.rate for on, off in pairs),
        "cpu_ratio": statistics.median(on.cpu / off.cpu for on, off in pairs),
        "texts_per_s_with": statistics.median(on.rate for on, _ in pairs),
        "texts_per_s_without": statistics.median(off.rate for _, off in pairs),
    }


class _Stream:
    """Records that are produced once a worker is ready for them."""

    def __init__(self, ground: Ground) -> None:
        self._ground, self._clock = ground, SystemClock()
        self._chance, self._posts = random.Random(ground.order.seed), fallback_posts()
        self._second = str(make_checkpoint(ground.folder / "second", seed=7))
        self.produced = 0
        topics = ground.topics
        kafka = KafkaSettings(bootstrap_servers=ground.broker.bootstrap_servers)
        with Admin(kafka) as admin:
            for name in (topics.input, topics.output, topics.dead):
                admin.create(name, topics.partitions)

    def turn(self, records: int, *, compared: bool) -> _Turn:
        """Label records on a worker, with a shadow of the same model or without; measure it."""
        threads = ("--model-threads", str(cores()))
        flags = _shadow_flags(self._ground.model) if compared else ()
        worker = self._worker(*threads, *flags)
        self._produce(records)
        begin, end = (self._sample(worker, int(records * share)) for share in _MIDDLE)
        self._finish(worker, records)
        (at, cpu, done), (at_end, cpu_end, done_end) = begin, end
        labelled = max(1.0, done_end - done)
        cpu_s = max(_TICK, cpu_end - cpu)
        return _Turn(labelled / max(1e-9, at_end - at), 1000 * cpu_s / labelled)

    def flips(self, records: int) -> tuple[Counter[tuple[str, str]], int]:
        """Compare with another model; return the flips and the number of texts.

        Raises:
            Failed: a count with both models over the same texts is another one.
        """
        first = self.produced
        # Two engines or number types would differ in a text now and then.
        worker = self._worker(
            *_shadow_flags(self._second), "--model-dtype", "float32", "--shadow-dtype", "float32"
        )
        self._produce(records)
        chosen = self._chosen(first)
        self._ground.until(
            lambda: _compared(worker) == len(chosen),
            f"the shadow has seen all {len(chosen):,} chosen texts",
            lambda: _compared(worker),
        )
        text = worker.get("/metrics")[1]
        found = Counter({(a, b): int(float(n)) for a, b, n in _FLIP.findall(text)})
        self._finish(worker, records)
        ours, theirs = (_labels(model, chosen) for model in (self._ground.model, self._second))
        counted = Counter(pair for pair in zip(ours, theirs, strict=True) if pair[0] != pair[1])
        if found != counted:
            raise Failed(f"the worker's flips are {dict(found)}, a count gives {dict(counted)}")
        return found, len(chosen)

    def _worker(self, *flags: str) -> WorkerProcess:
        worker = self._ground.worker(*flags)
        if "--shadow-name" in flags:
            self._ground.until(
                lambda: worker.metric("streamlabel_shadow_state") == _COMPARING,
                "the second model is loaded",
                lambda: worker.metric("process_cpu_seconds_total"),
            )
        return worker

    def _produce(self, records: int) -> None:
        texts = (
            f"{self._chance.choice(self._posts).text} ({number})"
            for number in range(self.produced, self.produced + records)
        )
        values = [(None, json.dumps({"text": text}).encode()) for text in texts]
        produce(self._ground.broker, self._ground.topics.input, values)
        self.produced += records

    def _sample(self, worker: WorkerProcess, records: int) -> tuple[float, float, float]:
        """Wait until a worker has published some records; return time, CPU seconds, records."""
        self._ground.until(
            lambda: worker.published >= records,
            f"{records:,} records are labelled",
            lambda: worker.published,
        )
        cpu = process_seconds(worker.process.pid) or 0.0
        return self._clock.monotonic(), cpu, worker.published

    def _finish(self, worker: WorkerProcess, records: int) -> None:
        self._sample(worker, records)
        if skipped := worker.metric("streamlabel_shadow_skipped_total"):
            raise Failed(f"the shadow skipped {skipped:.0f} texts")
        if code := worker.stop():
            raise Failed(f"the worker ended with {code}")

    def _chosen(self, first: int) -> list[str]:
        """Return the texts of the records since number `first` that the hash chooses."""
        topics, numbered = self._ground.topics, re.compile(r" \((\d+)\)$")
        return [
            text
            for record in read(self._ground.broker, topics.input, topics.partitions)
            if is_chosen(topics.input, record.partition, record.offset, SHARE)
            for text in [json.loads(record.value)["text"]]
            if int(_number(numbered, text)) >= first
        ]


def _number(pattern: re.Pattern[str], text: str) -> str:
    found = pattern.search(text)
    if found is None:
        raise Failed(f"a record of another producer: {text[:40]!r}")
    return found[1]


def _shadow_flags(model: str) -> tuple[str, ...]:
    share = ("--shadow-share", str(SHARE))
    return ("--shadow-name", model, *share, "--shadow-engine", "packed")


def _compared(worker: WorkerProcess) -> float:
    return worker.metric("streamlabel_shadow_texts_total")


def _labels(model: str, texts: Sequence[str]) -> Iterable[str]:
    """Label texts with a model alone."""
    settings = ModelSettings(name=model, dtype="float32", engine="packed")
    tokeniser, classifier = load(settings, forward_tokens=4096)
    found = [""] * len(texts)
    for start in range(0, len(texts), 256):
        for model_input in tokeniser.tokenise(texts[start : start + 256]):
            predictions = classifier.predict(model_input)
            for at, one in zip(model_input.positions, predictions, strict=True):
                best = one.probabilities.index(max(one.probabilities))
                found[start + at] = classifier.card.labels[best]
    return found
