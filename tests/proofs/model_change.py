"""Twenty changes of the model in a row under load, in one worker and in a pool of two."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from tests.chaos.arena import Arena
from tests.chaos.scale import ResultReader, percentiles
from tests.kube.verdicts import Failed
from tests.proofs.ground import PARTITIONS, Ground
from tests.proofs.registry import Proved, proof
from tests.support.changing import Changing, Offsets, takeovers
from tests.support.models import edit_json, make_checkpoint
from worker.clock import SystemClock

CHANGES = 20
_LENGTH_S = 300.0  # in which many records are produced; slow changes take longer
_LEAST_RATE = 50.0  # records a second
_ORDINARY = 0.2  # share of them before the first change
_PATIENCE_S = 120.0
_PROCESSES = 2
# A length of its own for each model, so that a result with another one's labels would be seen.
_LABELS = (("NEGATIVE", "POSITIVE"), ("NEGATIVE", "POSITIVE"), ("BAD", "SO-SO", "GOOD"))

clock = SystemClock()


@proof()
def model_change(ground: Ground) -> Proved:
    """20 model changes under load, by SIGHUP and POST /model in turn."""
    return change_models(ground, CHANGES)


@proof()
def model_change_in_a_pool(ground: Ground) -> Proved:
    """The same in a pool of 2 processes, which change one after the other."""
    return change_models(ground, CHANGES, _PROCESSES)


def change_models(ground: Ground, changes: int, processes: int = 1) -> Proved:
    """Change the model under load, and compare the log, the topics and the history.

    Raises:
        Failed: a change failed, or the three don't agree.
    """
    models = make_models(ground)
    more = ("--processes", str(processes)) if processes > 1 else ()
    worker = ground.changing(models[0], "--log-format", "json", *more)
    ground.until(
        lambda: f"{processes} of {processes}" in worker.get("/readyz")[1] or processes == 1,
        "every process is ready",
        lambda: worker.get("/readyz"),
    )
    seconds: list[float] = []
    arena = ground.feed(math.inf, rate=max(_LEAST_RATE, ground.order.records / _LENGTH_S))
    with _results(ground) as reader:
        _begin(ground, arena, reader)
        for number in range(changes):
            _await_turn(ground, arena, number / changes)
            reader.phase = "changes"
            seconds.append(_change(ground, worker, models[(number + 1) % len(models)], number))
            reader.phase = "between"
        if not arena.drain(lambda: None, _PATIENCE_S):
            raise Failed("the records that were produced are not all labelled")
    if code := worker.stop():
        raise Failed(f"the worker ended with {code}")
    _compare(ground, worker, changes)
    figures = _figures(reader) | {"longest_change_s": round(max(seconds), 1)}
    what = f"{changes} changes, first offsets exact"
    return Proved(what, ground.audit(), arena.produced, figures=figures)


def make_models(ground: Ground) -> list[Path]:
    """Return three models: of other weights each, the last one with other labels."""
    folder = ground.folder / "models"
    names = ("first", "second", "third")
    if ground.order.model == "tiny":
        return [
            make_checkpoint(folder / name, seed=seed, labels=labels)
            for seed, (name, labels) in enumerate(zip(names, _LABELS, strict=True))
        ]
    fetched = ground.run("model", "fetch", "--json", "--model", ground.model).document
    source = Path(fetched["folder"])
    made = [Path(shutil.copytree(source, folder / name)) for name in names]
    for number, copy in enumerate(made[1:], start=1):
        _vary(copy, number)
    renamed = {str(n): f"{label} (3)" for n, label in enumerate(fetched["labels"])}
    ids = {label: int(n) for n, label in renamed.items()}
    edit_json(made[2] / "config.json", id2label=renamed, label2id=ids)
    return made


def _vary(model: Path, number: int) -> None:
    """Change the weights a little, and with them their hash."""
    for file in sorted(model.glob("*.safetensors")):
        tensors = load_file(file)
        last = max(name for name, tensor in tensors.items() if tensor.is_floating_point())
        tensors[last] = tensors[last] * (1 + number / 100)
        save_file(tensors, file, metadata={"format": "pt"})


@contextlib.contextmanager
def _results(ground: Ground) -> Iterator[ResultReader]:
    reader = ResultReader(ground.broker, ground.topics.output, PARTITIONS)
    reading = threading.Thread(target=reader.run, name="reader", daemon=True)
    reading.start()
    try:
        yield reader
    finally:
        reader.stop.set()
        reading.join()


def _begin(ground: Ground, arena: Arena, reader: ResultReader) -> None:
    """Let an ordinary time pass, once the first records are labelled."""
    records = ground.order.records
    for phase, share in (("ordinary", _ORDINARY / 4), ("between", _ORDINARY)):
        _until_produced(ground, arena, records * share)
        ground.until(lambda: reader.seen >= PARTITIONS, "results", lambda: reader.seen)
        reader.phase = phase


def _await_turn(ground: Ground, arena: Arena, share: float) -> None:
    _until_produced(ground, arena, ground.order.records * (_ORDINARY + (1 - _ORDINARY) * share))


def _until_produced(ground: Ground, arena: Arena, records: float) -> None:
    ground.until(
        lambda: arena.produced >= records, f"{records:,.0f} records", lambda: arena.produced
    )


def _change(ground: Ground, worker: Changing, model: Path, number: int) -> float:
    """Change the model, and wait until it has labelled in every partition; return the seconds."""
    before = len(worker.told("model took over"))
    worker.write(model)
    begun = clock.monotonic()
    if number % 2:
        status, answer = worker.get("/model", {"name": str(model)})
        if status != 202:
            raise Failed(f"POST /model was answered with {status}: {answer}")
    else:
        worker.process.send_signal(signal.SIGHUP)

    def changed() -> bool:
        if worker.process.poll() is not None:
            raise Failed(f"the worker ended in change {number + 1}: see {worker.log}")
        change = worker.state().get("change") or {}
        if change.get("outcome") in ("failed", "refused"):
            raise Failed(f"change {number + 1} {change['outcome']}: {change['reason']}")
        return change.get("name") == str(model) and change.get("outcome") == "changed"

    ground.until(changed, f"change {number + 1} has ended", lambda: worker.told("model ready"))
    took = clock.monotonic() - begun
    ground.until(
        lambda: len(worker.told("model took over")) >= before + PARTITIONS,
        "every partition has a result of the new model",
        lambda: ground.outcomes,
    )
    return took


def _compare(ground: Ground, worker: Changing, changes: int) -> None:
    """Compare the log with the topics, and both with the history. Raises Failed."""
    found, _ = takeovers(ground.broker, ground.topics)
    logged = worker.logged_offsets(ground.topics.input)
    if (after := {partition: runs[1:] for partition, runs in found.items()}) != logged:
        raise Failed(f"the log has the first offsets {logged}, the topics have {after}")
    if {len(runs) for runs in logged.values()} != {changes} or len(logged) != PARTITIONS:
        raise Failed(f"not every partition has seen {changes} changes: {logged}")
    history = ground.run("model", "history", "--json").document
    (ground.folder / "history.json").write_text(json.dumps(history, indent=1), encoding="utf-8")
    if (told := _offsets_of(history)) != found:
        raise Failed(f"`model history` tells {told}, the topics have {found}")


def _offsets_of(history: dict[str, Any]) -> Offsets:
    return {
        partition["partition"]: [
            (run["weights_sha256"], run["first_offset"]) for run in partition["runs"]
        ]
        for partition in history["partitions"]
    }


def _figures(reader: ResultReader) -> dict[str, float]:
    figures = {"longest_stall_s": round(reader.stalls.get("changes", 0.0) / 1000, 2)}
    for phase in ("ordinary", "changes"):
        for name, value in percentiles(reader.ages.get(phase, [])).items():
            figures[f"{name}_{phase}" if name == "records" else f"{name}_ms_{phase}"] = round(value)
    return figures
