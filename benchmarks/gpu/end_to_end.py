"""Measures the whole path on one GPU with 1 to 8 worker processes and the embedded broker.

Feeders send new texts during a step; the workers' own counters give the number of results. The
figures include the broker's CPU time: it is one process, and can be the bottleneck of a step.

Owns: the processes and the figures of a step.
Thread: main.
"""

from __future__ import annotations

import contextlib
import statistics
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.vocabulary import checkpoint
from worker.bench.usage import process_seconds
from worker.clock import SystemClock
from worker.demo.broker import EmbeddedBroker
from worker.demo.workers import DemoWorkers, run_command
from worker.errors import Fatal
from worker.kafka_io.samples import sample_topics
from worker.processes import Interrupts, spawn, stop
from worker.settings import KafkaSettings

PARTITIONS: Final = 24
_SETTLE_S: Final = 4.0  # from the first results until queues and GPU are full
_READY_TIMEOUT_S: Final = 90.0
_FIRST_RESULT_TIMEOUT_S: Final = 60.0
_POLL_S: Final = 0.1
_STOP_S: Final = 5.0
_BROKER: Final = "noida-db"

clock = SystemClock()


def measure(sizes: Sizes, folder: Path) -> list[dict[str, Any]]:
    """Measure one step for each number of workers, each on new topics."""
    model = checkpoint(folder / "model", sizes)
    with Interrupts(clock) as interrupts:
        return [_step(sizes, number, model, folder, interrupts) for number in sizes.workers]


def _step(
    sizes: Sizes, number: int, model: Path, folder: Path, interrupts: Interrupts
) -> dict[str, Any]:
    name = f"gpu-{uuid.uuid4().hex[:8]}"
    topics = [f"{name}.{part}" for part in ("in", "labelled", "dead")]
    logs = folder / name
    logs.mkdir()
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(clock=clock))
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        stack.enter_context(
            sample_topics(kafka, dict.fromkeys(topics, PARTITIONS), name, keep=True)
        )
        workers = DemoWorkers(_command(sizes, kafka, name, topics, model), logs, interrupts, clock)
        stack.callback(workers.end)
        workers.start(number)
        workers.wait_until_ready(partial(_give_up, workers))
        stack.enter_context(_feeders(sizes, kafka, topics[0], logs))
        _await_first(workers, interrupts)
        interrupts.sleep(_SETTLE_S)
        busy = stack.enter_context(_gpu_busy(sizes))
        started, before, broker_before = clock.monotonic(), _published(workers), _broker_cpu_s()
        interrupts.sleep(sizes.seconds)
        workers.check()
        seconds, published = clock.monotonic() - started, _published(workers) - before
        return {
            "workers": number,
            "records_per_s": published / seconds,
            "broker_cpu_share": (_broker_cpu_s() - broker_before) / seconds,
            "gpu_busy": busy(),
        }


def _command(
    sizes: Sizes, kafka: KafkaSettings, group: str, topics: list[str], model: Path
) -> list[str]:
    return run_command(
        {
            "--bootstrap-servers": kafka.bootstrap_servers,
            "--group-id": group,
            "--input-topic": topics[0],
            "--output-topic": topics[1],
            "--output-dead-letter-topic": topics[2],
            "--model": str(model),
            "--model-device": sizes.device,
            "--cache-max-bytes": "0",
            "--batch-max-records": str(sizes.texts // 2),
            "--batch-max-tokens": str(sizes.passes[-1]),
            "--max-inflight-records": str(4 * sizes.texts),
            "--kafka-empty-poll-pause-ms": "5",
            "--kafka-rejoin-pause-ms": "100",
            "--log-format": "json",
        }
    )


@contextlib.contextmanager
def _feeders(sizes: Sizes, kafka: KafkaSettings, topic: str, logs: Path) -> Iterator[None]:
    seconds = _FIRST_RESULT_TIMEOUT_S + _SETTLE_S + sizes.seconds
    command = [sys.executable, "-m", "benchmarks.gpu.feeder"]
    command += [kafka.bootstrap_servers, topic, str(seconds)]
    with ExitStack() as stack:
        for number in range(sizes.feeders):
            output = stack.enter_context((logs / f"feeder-{number}.log").open("wb"))
            stack.callback(stop, spawn(command, output), _STOP_S)
        yield


def _give_up(workers: DemoWorkers, waited: float) -> None:
    """Fail early, because a GPU is lent by the minute, and say what the workers were doing."""
    if waited > _READY_TIMEOUT_S:
        raise Fatal(f"not all workers are ready after {waited:.0f} s; {workers.logs()}")


def _await_first(workers: DemoWorkers, interrupts: Interrupts) -> None:
    deadline = clock.monotonic() + _FIRST_RESULT_TIMEOUT_S
    while not _published(workers):
        workers.check()
        if clock.monotonic() > deadline:
            raise Fatal(f"no result within {_FIRST_RESULT_TIMEOUT_S:.0f} s; {workers.logs()}")
        interrupts.sleep(_POLL_S)


def _published(workers: DemoWorkers) -> float:
    return sum(value or 0.0 for value in workers.metric("streamlabel_records_published_total"))


@contextlib.contextmanager
def _gpu_busy(sizes: Sizes) -> Iterator[Any]:
    """Provide a function that returns the GPU's mean utilisation, or None without a GPU."""
    if sizes.device != "cuda":
        yield lambda: None
        return
    query = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    monitor = subprocess.Popen([*query, "-lms", "200"], stdout=subprocess.PIPE, text=True)

    def busy() -> float:
        monitor.terminate()
        output, _ = monitor.communicate()
        return statistics.mean(float(line) for line in output.split()) / 100

    try:
        yield busy
    finally:
        monitor.kill()


def _broker_cpu_s() -> float:
    """Return the CPU seconds of the embedded broker, the only one on this machine."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (process / "comm").read_text().strip() == _BROKER:
                return process_seconds(int(process.name)) or 0.0
    return 0.0
