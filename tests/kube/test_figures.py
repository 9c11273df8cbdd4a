"""Figures from times of results, pods and metrics."""

from __future__ import annotations

from typing import Any

import pytest

from tests.kube.figures import is_ready, longest_gap, metric, rate, ready_after


@pytest.mark.parametrize(
    ("times", "gap"),
    [
        ({0: [1, 2, 3, 9]}, 6),
        ({0: [9, 2, 3, 1]}, 6),
        ({0: [1, 5, 9], 1: [1, 2, 3, 4, 5, 6, 7, 9]}, 4),
        ({0: range(11), 1: [9]}, 9),
        ({0: range(11), 1: []}, 10),  # a partition without any result stalled all the time
        ({0: range(4)}, 7),  # up to the end of the window
        ({0: [-5, 30]}, 10),
        ({0: range(-9, 30)}, 1),
        ({}, 0),
    ],
)
def test_the_longest_gap_is_the_worst_partition_s(
    times: dict[int, list[float]], gap: float
) -> None:
    assert longest_gap(times, since=0, until=10) == gap


def test_the_rate_leaves_out_a_slow_start_and_a_slow_end() -> None:
    steady = [10 + number / 50 for number in range(100)]
    assert rate(steady) == pytest.approx(50)
    assert rate([0, 3, 6, *steady, 20, 25, 30]) == pytest.approx(50)
    assert rate([]) == rate([1]) == rate([1, 1, 1]) == 0


def pod(ready: str = "True", **metadata: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "worker-0", **metadata},
        "status": {
            "conditions": [
                {"type": "Ready", "status": ready, "lastTransitionTime": "2026-01-01T10:00:12Z"},
                {
                    "type": "PodScheduled",
                    "status": "True",
                    "lastTransitionTime": "2026-01-01T10:00:01Z",
                },
            ],
            "containerStatuses": [{"state": {"running": {"startedAt": "2026-01-01T10:00:02Z"}}}],
        },
    }


def test_a_pod_is_ready_some_seconds_after_its_container_started() -> None:
    assert ready_after(pod()) == 10


def test_a_pod_that_is_not_ready_or_does_not_run_has_no_such_time() -> None:
    waiting = pod()
    waiting["status"]["containerStatuses"] = [
        {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    ]
    assert (
        ready_after(pod("False")) is ready_after(waiting) is ready_after({"metadata": {}}) is None
    )


def test_a_pod_that_was_asked_to_end_is_not_ready() -> None:
    assert is_ready(pod())
    assert not is_ready(pod("False"))
    assert not is_ready(pod(deletionTimestamp="2026-01-01T10:00:20Z"))
    assert not is_ready({"metadata": {}, "status": {}})


def test_a_metric_is_found_by_its_whole_name() -> None:
    text = (
        "# HELP a_total Things.\n# TYPE a_total counter\n"
        'a_total{x="1",y="b c"} 2.0\na_total{x="2"} 3\na_total_more 7\nb 1e3\n'
    )
    assert metric(text, "a_total") == {'{x="1",y="b c"}': 2.0, '{x="2"}': 3.0}
    assert metric(text, "b") == {"": 1000.0}
    assert metric(text, "a") == {}
