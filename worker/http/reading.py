"""Reads a metrics registry, and computes rates and quantiles between two readings.

Owns: nothing; values in, values out.
Thread: any.
Must not import: any other module of the worker.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import Metric

PREFIX: Final = "streamlabel_"
_Series = list[tuple[dict[str, str], float]]
Buckets = list[tuple[float, float]]  # upper bound, observations at or below it


class Reading:
    """The samples of a registry at one moment, by name without `streamlabel_`."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._series: dict[str, _Series] = defaultdict(list)
        for family in families:
            if family.name.startswith(PREFIX):
                for sample in family.samples:
                    name = sample.name.removeprefix(PREFIX)
                    self._series[name].append((sample.labels, sample.value))

    def series(self, name: str) -> _Series:
        """Return the labels and value of each sample."""
        return self._series.get(name, [])

    def total(self, name: str, **where: str) -> float:
        """Return the sum of the samples that have these labels; 0 if there are none."""
        return sum(value for _, value in self._matching(name, where))

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return each sample's value by its value of one label."""
        return {labels[label]: value for labels, value in self.series(name)}

    def facts(self, name: str) -> dict[str, str]:
        """Return the labels of an Info metric; empty before it is set."""
        return dict(next(iter(self.series(name)), ({}, 0.0))[0])

    def buckets(self, name: str, **where: str) -> Buckets:
        """Return a histogram's buckets, from the lowest bound to infinity."""
        samples = self._matching(f"{name}_bucket", where)
        return sorted((float(labels["le"]), value) for labels, value in samples)

    def _matching(
        self, name: str, where: Mapping[str, str]
    ) -> Iterator[tuple[dict[str, str], float]]:
        wanted = where.items()
        return (sample for sample in self.series(name) if wanted <= sample[0].items())


def between(old: Buckets, new: Buckets) -> Buckets:
    """Return the observations that each bucket gained; all of them if `old` lacks the bucket."""
    before = dict(old)
    return [(bound, count - before.get(bound, 0.0)) for bound, count in new]


def quantile(buckets: Buckets, share: float) -> float | None:
    """Return the value below which a share of a histogram's observations lies.

    Interpolates within a bucket as if its observations were evenly spread. Returns None for no
    observations, and the highest finite bound for a quantile above it.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    wanted = share * buckets[-1][1]
    low, below = 0.0, 0.0
    for bound, count in buckets:
        if count >= wanted:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (wanted - below) / (count - below or 1.0)
        low, below = bound, count
    return low
