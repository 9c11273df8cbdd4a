"""One set of metrics out of many: what the processes of a pool count, together.

Why not prometheus_client's multiprocess mode: it has no Info and no process metrics, writes a file
for each process and metric type that is never cleaned of counters, and has to be chosen by the
environment before the library is imported. Why not read each process's own /metrics: a counter
that is summed over live processes falls when one of them dies, and what falls is to `rate()` a
restart from zero: it would count all that the others have ever done once more.

So: the counters of a process that has ended are kept and added for ever. Walk-through: a counts 70
and b 30, 100 is shown. b is killed; its last report stays in the sum, 100. b' starts at 0, then
counts 5: 70 + 30 + 5. What b counted after its last report is missing for good, at most a second's
worth after SIGKILL and nothing after any other end, as the last report follows the drain.

The readers of the reports write, the HTTP thread reads: one lock. Imports prometheus_client alone.
"""

from __future__ import annotations

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
    "sum": lambda one, other: one + other,
    "max": max,
    "min": min,
}
# The library's own collectors declare nothing. Memory that processes share is counted in each.
_PROCESS = {
    "process_virtual_memory_bytes": "sum",
    "process_resident_memory_bytes": "sum",
    "process_open_fds": "sum",
    "process_max_fds": "min",
    "process_start_time_seconds": "min",
    "python_info": "max",
}


class Totals(Collector):
    """The families of the parent and of all slots, as one process would show them.

    Attributes:
        registry: for the HTTP server.
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
        """The names, for scrapes that choose some of them (`/metrics?name[]=...`)."""
        return self._merged([("", Metrics().registry.collect()), self._own()])

    def note(self, slot: int, families: Families) -> None:
        """Take a slot's newest report in."""
        with self._lock:
            self._live[slot] = families

    def retire(self, slot: int) -> None:
        """A slot's process has ended: its gauges go, what it has counted stays."""
        with self._lock:
            counted = [f for f in self._live.pop(slot, []) if f.type in _CUMULATIVE]
            self._past = self._merged([("", self._past), ("", counted)])

    def collect(self) -> Iterator[Metric]:
        """What is true now, and what was ever counted."""
        with self._lock:
            live = [(str(slot), families) for slot, families in sorted(self._live.items())]
            yield from self._merged([("", self._past), *live, self._own()])

    def _own(self) -> tuple[str, Iterable[Metric]]:
        return "parent", self._parent.registry.collect()

    def _merged(self, parts: Iterable[tuple[str, Iterable[Metric]]]) -> Families:
        return merge(parts, self._modes)


def merge(parts: Iterable[tuple[str, Iterable[Metric]]], modes: Mapping[str, str]) -> Families:
    """One family for each name; samples of equal labels become one, with the newest exemplar.

    Args:
        parts: a slot's name and its families, in the order in which they shall be shown.
        modes: a gauge's name -> sum, max or min. A gauge with another mode or none is shown for
            each slot by itself, with the label `slot`: a wrong sum would look like a right one.
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
    both = _OPERATIONS[mode](known.value, sample.value) if known and mode else sample.value
    exemplars = [one.exemplar for one in (known, sample) if one and one.exemplar]
    newest = max(exemplars, key=lambda one: float(one.timestamp or 0), default=None)
    series[key] = Sample(sample.name, labels, both, None, newest)


def _mode(family: Metric, sample: str, modes: Mapping[str, str]) -> str | None:
    """How samples become one; None where they stay apart."""
    if family.type == "gauge":
        mode = modes.get(family.name)
        return mode if mode in _OPERATIONS else None
    if family.type in _CUMULATIVE:
        return "min" if sample.endswith("_created") else "sum"  # counted since the first of them
    return "max"  # an Info is 1 once for each set of facts


def _modes() -> dict[str, str]:
    """As the catalogue declares them; all gauges here are those of live processes."""
    declared = {
        # The library has no public way to ask a gauge for its mode.
        c._name: c._multiprocess_mode.removeprefix("live")  # noqa: SLF001
        for c in vars(Metrics()).values()
        if isinstance(c, Gauge)
    }
    return declared | _PROCESS
