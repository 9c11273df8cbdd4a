"""What a registry says at one moment, and what has happened between two such moments.

Pure: values in, values out. Imports prometheus_client alone.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client import Metric

PREFIX: Final = "streamlabel_"
_Series = list[tuple[dict[str, str], float]]
Buckets = list[tuple[float, float]]  # upper bound, how many up to it


class Reading:
    """The samples of a registry, by their names without `streamlabel_`."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._series: dict[str, _Series] = defaultdict(list)
        for family in families:
            if family.name.startswith(PREFIX):
                for sample in family.samples:
                    name = sample.name.removeprefix(PREFIX)
                    self._series[name].append((sample.labels, sample.value))

    def series(self, name: str) -> _Series:
        """Labels and value of each sample."""
        return self._series.get(name, [])

    def total(self, name: str, **where: str) -> float:
        """The sum of the samples that have these labels; 0 where there is none."""
        return sum(value for _, value in self._matching(name, where))

    def by(self, name: str, label: str) -> dict[str, float]:
        """The values by one label's."""
        return {labels[label]: value for labels, value in self.series(name)}

    def facts(self, name: str) -> dict[str, str]:
        """The labels of an Info; empty before it is set."""
        return dict(next(iter(self.series(name)), ({}, 0.0))[0])

    def buckets(self, name: str, **where: str) -> Buckets:
        """A histogram's, from the least bound to infinity."""
        found = self._matching(f"{name}_bucket", where)
        return sorted((float(labels["le"]), value) for labels, value in found)

    def _matching(
        self, name: str, where: Mapping[str, str]
    ) -> Iterator[tuple[dict[str, str], float]]:
        wanted = where.items()
        return (one for one in self.series(name) if wanted <= one[0].items())


def between(old: Buckets, new: Buckets) -> Buckets:
    """What came to each bucket; all of it where there was no such series before."""
    before = dict(old)
    return [(bound, number - before.get(bound, 0.0)) for bound, number in new]


def quantile(buckets: Buckets, share: float) -> float | None:
    """Where that share of a histogram's observations lies below; None for no observations.

    Within a bucket, observations count as evenly spread; above the last bound nothing is known but
    that bound, and that is what comes back.
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    wanted = share * buckets[-1][1]
    low, below = 0.0, 0.0
    for bound, number in buckets:
        if number >= wanted:
            if math.isinf(bound):
                return low
            return low + (bound - low) * (wanted - below) / (number - below or 1.0)
        low, below = bound, number
    return low
