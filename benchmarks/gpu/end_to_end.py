"""Measures the whole path on one GPU by number of processes, with the embedded broker.

Each step has a broker of its own, and a backlog that is sent before the workers start, so that no
producer uses the cores meanwhile. The worker's own counters give the number of results and its CPU
time. The figures include the broker's CPU time: it is one process, and can be the bottleneck of a
step.

Owns: the processes and the figures of a step.
Thread: main.
"""

from __future__ import annotations

import contextlib
import http.client
import statistics
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
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

PARTITIONS: Final = 48  # a multiple of each number of processes, so that all read as many
_SETTLE_S: Final = 4.0  # from the last process's readiness until queues and GPU are full
_READY_TIMEOUT_S: Final = 90.0
_FEED_TIMEOUT_S: Final = 120.0
_READ_SHARE: Final = 0.95  # of the backlog; beyond it, partitions may be at their end
_POLL_S: Final = 0.1
_STOP_S: Final = 5.0
_BROKER: Final = "noida-db"
_STAGES: Final = ("tokenise", "infer", "publish")

clock = SystemClock()


def measure(sizes: Sizes, folder: Path) -> list[dict[str, Any]]:
    """Measure one step for each number of processes."""
    model = checkpoint(folder / "model", sizes)
    with Interrupts(clock) as interrupts:
        return [_step(sizes, number, model, folder, interrupts) for number in sizes.workers]


def _step(
    sizes: Sizes, number: int, model: Path, folder: Path, interrupts: Interrupts
) -> dict[str, Any]:
    name = f"gpu-{uuid.uuid4().hex[:8]}"
    topics = [f"{name}.{part}" for part in ("in", "labelled", "dead")]
    texts = min(number * sizes.backlog, sizes.largest_backlog)
    logs = folder / name
    logs.mkdir()
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(clock=clock))
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        stack.enter_context(
            sample_topics(kafka, dict.fromkeys(topics, PARTITIONS), name, keep=True)
        )
        _feed(texts // sizes.feeders, sizes.feeders, kafka, topics[0], logs)
        command = [*_command(sizes, kafka, name, topics, model), "--processes", str(number)]
        workers = DemoWorkers(command, logs, interrupts, clock)
        stack.callback(workers.end)
        workers.start(1)
        workers.wait_until_ready(partial(_give_up, workers))
        _wait_for_all(workers, number, interrupts)
        interrupts.sleep(_SETTLE_S)
        busy = stack.enter_context(_gpu_busy(sizes))
        started, before = clock.monotonic(), _counters(workers)
        interrupts.sleep(sizes.seconds)
        workers.check()
        seconds, after = clock.monotonic() - started, _counters(workers)
        if not before["published"] < after["published"] < _READ_SHARE * texts:
            raise Fatal(f"{after['published']:,.0f} of {texts:,} texts were labelled at the end")
        rates = {key: (after[key] - before[key]) / seconds for key in after}
        return {
            "workers": number,
            "records_per_s": rates["published"],
            "worker_cpu_share": rates["worker"],
            "broker_cpu_share": rates["broker"],
            "gpu_busy": busy(),
            "stages_busy": {stage: rates[stage] / number for stage in _STAGES},
        }


def _feed(texts: int, feeders: int, kafka: KafkaSettings, topic: str, logs: Path) -> None:
    """Send so many texts from each of several processes."""
    command = [sys.executable, "-m", "benchmarks.gpu.feeder", kafka.bootstrap_servers, topic]
    with ExitStack() as stack:
        processes = []
        for number in range(feeders):
            output = stack.enter_context((logs / f"feeder-{number}.log").open("wb"))
            processes.append(spawn([*command, str(texts)], output))
            stack.callback(stop, processes[-1], _STOP_S)
        until = clock.monotonic() + _FEED_TIMEOUT_S
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - clock.monotonic()))
            if process.poll() != 0:
                raise Fatal(f"a feeder has not sent its texts after {_FEED_TIMEOUT_S:.0f} s")


def _wait_for_all(workers: DemoWorkers, number: int, interrupts: Interrupts) -> None:
    """Wait until the last process is ready; a pool is ready with the first."""
    started = clock.monotonic()
    while number > 1 and f"{number} of {number} ready" not in _readiness(workers.urls[0]):
        workers.check()
        _give_up(workers, clock.monotonic() - started)
        interrupts.sleep(_POLL_S)


def _readiness(url: str) -> str:
    address = url.removeprefix("http://")
    connection = http.client.HTTPConnection(address, timeout=2.0)
    with contextlib.closing(connection):
        connection.request("GET", "/readyz")
        return connection.getresponse().read().decode()


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


def _give_up(workers: DemoWorkers, waited: float) -> None:
    """Fail early, because a GPU is lent by the minute, and say what the workers were doing."""
    if waited > _READY_TIMEOUT_S:
        raise Fatal(f"not all workers are ready after {waited:.0f} s; {workers.logs()}")


def _counters(workers: DemoWorkers) -> dict[str, float]:
    """Return results and CPU seconds so far, and the seconds that each stage worked."""
    names = {
        "published": "streamlabel_records_published_total",
        "worker": "process_cpu_seconds_total",
    }
    names |= {
        stage: rf'streamlabel_stage_busy_seconds_total{{stage="{stage}"}}' for stage in _STAGES
    }
    counters = {key: sum(map(float, filter(None, workers.metric(n)))) for key, n in names.items()}
    return counters | {"broker": _broker_cpu_s()}


@contextlib.contextmanager
def _gpu_busy(sizes: Sizes) -> Iterator[Callable[[], float | None]]:
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
