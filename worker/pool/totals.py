"""Merges the metrics of a pool's processes into one set, in which no counter ever falls.

Owns: each slot's newest metrics, and the counters of processes that have ended.
Thread: `reports-PID` and main write, http reads; one lock.
Must not import: kafka, torch, transformers.

prometheus_client's multiprocess mode does not fit: it has no Info and no process metrics, keeps a
file of counters for each process that ever ran, and must be chosen by an environment variable
before the library is imported. Scraping each process does not fit either: a sum over live processes
falls when one of them dies. `rate()` takes a fall for a reset to zero, and would count all that the
other processes ever did a second time.

So the counters of a process that has ended stay in the sum for ever. Walk-through: A counts 70 and
B 30; the sum is 100. B is killed; its last report stays in the sum, 100. B's successor starts at 0
and counts 5: 70 + 30 + 5 = 105. The sum lacks only the counts of B after its last report: at most a
second's worth after SIGKILL, and none after any other end, as the last report follows the drain.
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Gauge, Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from worker.metrics import Metrics, PoolMetrics

Families = list[Metric]
_Series = dict[tuple[str, frozenset[tuple[str, str]]], Sample]

_CUMULATIVE = ("counter", "histogram")
_OPERATIONS: dict[str, Callable[[float, float], float]] = {
    "sum": operator.add,
    "max": max,
    "min": min,
}
# Modes of collectors that declare none: the library's own, and the parent's, whose series are its
# own already. Shared memory counts once a process.
_PROCESS = {
    "streamlabel_process_model": "max",
    "process_virtual_memory_bytes": "sum",
    "process_resident_memory_bytes": "sum",
    "process_open_fds": "sum",
    "process_max_fds": "min",
    "process_start_time_seconds": "min",
    "python_info": "max",
}


class Totals(Collector):
    """The metrics of the parent and of all slots, as those of one process.

    Attributes:
        registry: the registry for the HTTP server.
    """

    def __init__(self, parent: PoolMetrics) -> None:
        self._parent = parent
        self._modes = _modes()
        self._live: dict[int, Families] = {}
        self._past: Families = []
        self._lock = threading.Lock()
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """Return the families' names, for scrapes that select some (`/metrics?name[]=...`)."""
        return self._merged([("", Metrics().registry.collect()), self._own()])

    def note(self, slot: int, families: Families) -> None:
        """Replace a slot's metrics by those of its newest report."""
        with self._lock:
            self._live[slot] = families

    def retire(self, slot: int) -> None:
        """Drop the gauges of a process that has ended, and keep its counters."""
        with self._lock:
            counted = [f for f in self._live.pop(slot, []) if f.type in _CUMULATIVE]
            self._past = self._merged([("", self._past), ("", counted)])

    def collect(self) -> Iterator[Metric]:
        """Return the gauges of live processes, and the counters of all that ever ran."""
        with self._lock:
            live = [(str(slot), families) for slot, families in sorted(self._live.items())]
            yield from self._merged([("", self._past), *live, self._own()])

    def _own(self) -> tuple[str, Iterable[Metric]]:
        return "parent", self._parent.registry.collect()

    def _merged(self, parts: Iterable[tuple[str, Iterable[Metric]]]) -> Families:
        return merge(parts, self._modes)


def merge(parts: Iterable[tuple[str, Iterable[Metric]]], modes: Mapping[str, str]) -> Families:
    """Merge the families of each name; equal labels become one sample, with the newest exemplar.

    Args:
        parts: a slot's name and its families, in the order of the result.
        modes: a gauge's name -> sum, max or min. A gauge with no such mode keeps one sample a slot,
            with the label `slot`: nobody could tell a wrong sum from a right one.
    """
    families: dict[str, Metric] = {}
    series: dict[str, _Series] = {}
    for slot, part in parts:
        for family in part:
            name = family.name
            families.setdefault(name, Metric(name, family.documentation, family.type, family.unit))
            for sample in family.samples:
                mode = _mode(family, sample.name, modes)
                _add(series.setdefault(name, {}), sample, mode, slot)
    for name, samples in series.items():
        families[name].samples = list(samples.values())
    return list(families.values())


def _add(series: _Series, sample: Sample, mode: str | None, slot: str) -> None:
    labels = sample.labels if mode else sample.labels | {"slot": slot}
    key = (sample.name, frozenset(labels.items()))
    known = series.get(key)
    value = _OPERATIONS[mode](known.value, sample.value) if known and mode else sample.value
    exemplars = [s.exemplar for s in (known, sample) if s and s.exemplar]
    newest = max(exemplars, key=lambda exemplar: float(exemplar.timestamp or 0), default=None)
    series[key] = Sample(sample.name, labels, value, None, newest)


def _mode(family: Metric, sample: str, modes: Mapping[str, str]) -> str | None:
    """Return how to merge samples, or None to keep them apart."""
    if family.type == "gauge":
        mode = modes.get(family.name)
        return mode if mode in _OPERATIONS else None
    if family.type in _CUMULATIVE:
        return (
            "min" if sample.endswith("_created") else "sum"
        )  # the sum counts since the first of them
    return "max"  # an Info has the value 1


def _modes() -> dict[str, str]:
    """Return the modes that the catalogue declares; here, every gauge is one of a live process."""
    declared = {
        # The library has no public attribute for a gauge's mode.
        c._name: c._multiprocess_mode.removeprefix("live")  # noqa: SLF001
        for c in vars(Metrics()).values()
        if isinstance(c, Gauge)
    }
    return declared | _PROCESS
