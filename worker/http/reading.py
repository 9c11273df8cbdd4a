"""Reads a metrics registry, and computes quantiles of the differences between two readings.

Owns: nothing; values in, values out.
Thread: any.
Must not import: any other module of the worker.
"""

from __future__ import annotations

import math
from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from prometheus_client import Metric

PREFIX: Final = "streamlabel_"
# A sample has its family's name and one of these. No figure needs the times of creation.
_SUFFIXES: Final = ("", "_total", "_bucket", "_count", "_sum", "_info")
_CREATED: Final = "_created"
_Labels = list[dict[str, str]]
_Series = list[tuple[dict[str, str], float]]
Buckets = list[tuple[float, float]]  # upper bound, observations at or below it


class Reading:
    """The samples of a registry at one moment, by name without `streamlabel_`.

    Args:
        families: of the registry.
        previous: the reading before, if there is one. Labels that have not changed since are its
            own, so that a reading which is kept takes about 10 kB rather than 150.
        kept: names whose samples are those of the reading before.
    """

    __slots__ = ("_labels", "_values")

    def __init__(
        self,
        families: Iterable[Metric],
        previous: Reading | None = None,
        kept: Iterable[str] = (),
    ) -> None:
        labels: dict[str, _Labels] = defaultdict(list)
        self._values: dict[str, array[float]] = defaultdict(_doubles)
        for family in families:
            if family.name.startswith(PREFIX):
                for sample in family.samples:
                    if sample.name.endswith(_CREATED):
                        continue
                    name = sample.name.removeprefix(PREFIX)
                    labels[name].append(sample.labels)
                    self._values[name].append(sample.value)
        known: dict[str, _Labels] = previous._labels if previous else {}  # noqa: SLF001 - our own
        self._labels: dict[str, _Labels] = {
            name: known[name] if known.get(name) == all_labels else all_labels
            for name, all_labels in labels.items()
        }
        if previous:
            for name in kept:
                if name in known:
                    self._labels[name] = known[name]
                    self._values[name] = previous._values[name]  # noqa: SLF001 - our own

    def series(self, name: str) -> _Series:
        """Return the labels and value of each sample."""
        return list(self._pairs(name))

    def size(self, name: str) -> int:
        """Return the number of samples."""
        return len(self._values.get(name, ()))

    def total(self, name: str, /, **where: str) -> float:
        """Return the sum of the samples that have these labels; 0 if there are none."""
        if not where:
            return sum(self._values.get(name, ()))
        return sum(value for _, value in self._matching(name, where))

    def by(self, name: str, label: str) -> dict[str, float]:
        """Return each sample's value by its value of one label."""
        return {labels[label]: value for labels, value in self._pairs(name)}

    def facts(self, name: str) -> dict[str, str]:
        """Return the labels of an Info metric; empty before it is set."""
        return dict(next(self._pairs(name), ({}, 0.0))[0])

    def buckets(self, name: str, /, **where: str) -> Buckets:
        """Return a histogram's buckets, from the lowest bound to infinity."""
        samples = self._matching(f"{name}_bucket", where)
        return sorted((float(labels["le"]), value) for labels, value in samples)

    def _pairs(self, name: str) -> Iterator[tuple[dict[str, str], float]]:
        return zip(self._labels.get(name, ()), self._values.get(name, ()), strict=True)

    def _matching(
        self, name: str, where: Mapping[str, str]
    ) -> Iterator[tuple[dict[str, str], float]]:
        wanted = where.items()
        return (sample for sample in self._pairs(name) if wanted <= sample[0].items())


def sample_names(families: Iterable[Metric], without: Iterable[str]) -> list[str]:
    """Return the names that samples of these families may have, without those of some families.

    Args:
        families: of the registry; also those that have no sample yet.
        without: names of families, without `streamlabel_`.
    """
    left_out = {PREFIX + name for name in without}
    names = (family.name for family in families if family.name not in left_out)
    return [name + suffix for name in names if name.startswith(PREFIX) for suffix in _SUFFIXES]


class Window(NamedTuple):
    """Two readings, and the seconds between them."""

    old: Reading
    new: Reading
    seconds: float

    def gained(self, name: str, /, **where: str) -> float:
        """Return by how much a counter grew."""
        return self.new.total(name, **where) - self.old.total(name, **where)

    def rate(self, name: str, /, **where: str) -> float | None:
        """Return by how much a counter grew a second, or None if no time has passed."""
        return self.gained(name, **where) / self.seconds if self.seconds > 0 else None

    def mean(self, histogram: str, /, **where: str) -> float | None:
        """Return the mean of a histogram's observations, or None without any."""
        count = self.gained(f"{histogram}_count", **where)
        return self.gained(f"{histogram}_sum", **where) / count if count else None

    def quantile(self, histogram: str, share: float) -> float | None:
        """Return a quantile of a histogram's observations; see `quantile`."""
        return quantile(between(self.old.buckets(histogram), self.new.buckets(histogram)), share)


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


def _doubles() -> array[float]:
    return array("d")
