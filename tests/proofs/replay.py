"""A third of the records is dead, and a replay of them is killed again and again."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from tests.kube.verdicts import Failed
from tests.proofs.ground import Command, Ground
from tests.proofs.registry import Proved, proof
from worker.clock import SystemClock
from worker.kafka_io.reader import TopicReader
from worker.settings import KafkaSettings

_DEAD = 1 / 3  # of the records
_SAMPLE = 3_000  # records
_KILLS = (0.1, 0.3, 0.5, 0.7, 0.9)  # at these shares of the dead letters
_SECONDS = 20.0  # a replay takes at least that long, so that it can be interrupted


@proof()
def replay(ground: Ground) -> Proved:
    """Dead letters are copied into the input by a command that is killed five times."""
    dead = _die(ground)
    before = ground.size(ground.topics.input)
    records, seconds = _replay(ground, dead, lambda: ground.size(ground.topics.input) - before)
    worker = ground.worker()
    ground.until(lambda: ground.lag == 0, "all copies are labelled", lambda: ground.outcomes)
    if code := worker.stop():
        raise Failed(f"the worker ended with {code}")
    return _proved(ground, records, dead, seconds)


@proof()
def replay_label(ground: Ground) -> Proved:
    """Dead letters are labelled at once by a command that is killed five times."""
    dead = _die(ground)
    before = ground.size(ground.topics.output)
    more = ("--label", "--model", ground.model, "--model-engine", "packed", "--model-threads", "1")
    records, seconds = _replay(
        ground, dead, lambda: ground.size(ground.topics.output) - before, *more
    )
    return _proved(ground, records, dead, seconds)


def _die(ground: Ground) -> int:
    """Let a worker label all records but the longest third; return the number of dead letters."""
    arena = ground.produced()
    limit = _longest_third(ground)
    worker = ground.worker(
        *("--input-max-bytes", str(limit), "--max-unreadable-ratio", "1"),
    )
    ground.labelled(arena)
    if code := worker.stop():
        raise Failed(f"the worker ended with {code}")
    counts = ground.run("dead-letters", "list", "--json").document
    dead: int = counts["dead_letters"]
    if [group["name"] for group in counts["groups"]] != ["too_large"] or dead < arena.produced / 4:
        raise Failed(f"a third of the records should be too large: {counts}")
    return dead


def _longest_third(ground: Ground) -> int:
    """Return the size that a third of the values exceeds, bytes."""
    kafka = KafkaSettings(bootstrap_servers=ground.broker.bootstrap_servers)
    ends = dict.fromkeys(range(ground.topics.partitions), ground.order.records)
    with TopicReader(kafka, patience=2.0) as reader:
        read = islice(reader.read(ground.topics.input, ends), _SAMPLE)
        sizes = sorted(len(record.value) for record in read)
    return sizes[round(len(sizes) * (1 - _DEAD))]


def _replay(ground: Ground, dead: int, done: Callable[[], int], *more: str) -> tuple[int, float]:
    """Replay with kills; return the number of input records before, and the seconds."""
    records, began = ground.order.records, SystemClock().monotonic()

    def start() -> Command:
        return ground.start(
            *("dead-letters", "replay", "--json", "--delivery", ground.order.delivery),
            *("--rate", f"{max(10.0, dead / _SECONDS):.0f}", "--kafka-session-timeout", "10"),
            *more,
            group=f"{ground.topics.group}-replay",
        )

    for share in _KILLS:
        least = max(1, round(dead * share))
        ground.kill_when(start(), lambda: done() >= least, f"{least} are replayed")  # noqa: B023 - called at once
    last = start()
    last.wait()
    if last.document["left"] or last.document["refused"] or not last.document["replayed"]:
        raise Failed(f"it ended with 0 and this report: {last.document}")
    return records, SystemClock().monotonic() - began


def _proved(ground: Ground, records: int, dead: int, seconds: float) -> Proved:
    report = ground.audit()
    once = ground.order.delivery == "exactly_once"
    if report["replayed"] != dead:
        raise Failed(f"{report['replayed']} of {dead} dead letters were replayed: {report}")
    return Proved(
        f"killed {len(_KILLS)} times, {dead:,} of {records:,} records were dead",
        report,
        records,
        dead_letters=0,
        twice_allowed=0 if once else None,
        figures={"dead_letters": dead, "seconds": seconds, "twice": report["duplicated"]},
    )
