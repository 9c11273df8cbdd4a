"""Figures from the times of results, and from what Kubernetes says about pods. Pure."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Iterable, Mapping
from typing import Any


def longest_gap(times: Mapping[int, Iterable[float]], since: float, until: float) -> float:
    """Return the longest time in which a partition had no result, in the unit of the times.

    Args:
        times: partition -> times at which its results were made, in any order.
        since: start of the window; a gap that crosses it counts from there.
        until: its end; a gap that crosses it counts up to there.
    """
    gaps = [0.0]
    for found in times.values():
        inside = sorted(time for time in found if since <= time <= until)
        edges = itertools.pairwise([since, *inside, until])
        gaps += [later - earlier for earlier, later in edges]
    return max(gaps)


def rate(times: Iterable[float]) -> float:
    """Return results a second from their times in seconds, without the first and last tenth.

    The first batches are small and the last one too: they belong to the start and the end.
    """
    ordered = sorted(times)
    cut = len(ordered) // 10
    middle = ordered[cut : len(ordered) - cut]
    if len(middle) < 2 or middle[-1] <= middle[0]:
        return 0.0
    return (len(middle) - 1) / (middle[-1] - middle[0])


def ready_after(pod: Mapping[str, Any]) -> float | None:
    """Return the seconds from the start of a pod's container to its readiness, or None.

    Kubernetes states both times in whole seconds.
    """
    statuses = pod.get("status", {}).get("containerStatuses", [])
    started = [s["state"]["running"]["startedAt"] for s in statuses if "running" in s["state"]]
    ready = condition(pod, "Ready")
    if not started or ready is None or ready["status"] != "True":
        return None
    return (_time(ready["lastTransitionTime"]) - _time(started[0])).total_seconds()


def condition(thing: Mapping[str, Any], kind: str) -> dict[str, Any] | None:
    """Return a condition of a pod, a node, a Deployment ..., or None."""
    conditions = thing.get("status", {}).get("conditions", [])
    return next((found for found in conditions if found["type"] == kind), None)


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Return whether a pod is ready and stays: one that was asked to end doesn't count."""
    found = condition(pod, "Ready")
    leaving = "deletionTimestamp" in pod["metadata"]
    return found is not None and found["status"] == "True" and not leaving


def metric(text: str, name: str) -> dict[str, float]:
    """Return a metric's series from Prometheus's text format: labels as written -> value."""
    series = {}
    for line in text.splitlines():
        head, _, value = line.rpartition(" ")
        found, brace, labels = head.partition("{")
        if found == name:
            series[brace + labels] = float(value)
    return series


def _time(text: str) -> dt.datetime:
    return dt.datetime.fromisoformat(text)
