"""A CPU limit, as the real kubelet sets it."""

from __future__ import annotations

from collections.abc import Mapping

from tests.kube.registry import Happened, scenario
from tests.kube.release import Release, Values, name_of, now
from tests.kube.site import Site
from tests.kube.verdicts import Failed

_RECORDS = 4000
# Version 2 of cgroups, then version 1; nanoseconds there.
_CPU_STAT = "cat /sys/fs/cgroup/cpu.stat 2>/dev/null || cat /sys/fs/cgroup/cpu/cpu.stat"
_MOST_THROTTLED = 0.5  # of the time, cores added up; two threads reach 1


@scenario(order=240)
def cpu_limit_is_kept(site: Site) -> Happened:
    """A worker with a limit of 1 CPU starts one thread, and is hardly throttled."""
    values: Values = {"replicaCount": 1, "resources": {"limits": {"cpu": "1"}}}
    with site.release("one-cpu", values=values) as release:
        pod = name_of(release.wait_ready()[0])
        log = release.cluster.kubectl("logs", pod, "-n", release.namespace)
        before, begun = _cpu_stat(release, pod), now()
        release.produce(_RECORDS)
        observed = release.observe(begun)
        after = _cpu_stat(release, pod)
    if not any('"threads": 1,' in line and "quota 1 of" in line for line in log.splitlines()):
        raise Failed('no line of the log has "threads": 1 and the quota')
    periods, throttled, share = throttling(before, after, observed.last_s)
    if not periods:
        raise Failed("the kubelet has set no CPU quota")
    if share > _MOST_THROTTLED:
        raise Failed(f"throttled for {share:.0%} of the time, more than {_MOST_THROTTLED:.0%}")
    figures = {
        "throttled_periods_percent": round(100 * throttled / periods),
        "throttled_time_percent": round(100 * share),
        "records_a_second": round(observed.rate),
    }
    return Happened("one thread at 1 CPU", figures=figures, tally=observed.tally)


def _cpu_stat(release: Release, pod: str) -> dict[str, int]:
    text = release.cluster.kubectl(
        *("exec", pod, "-n", release.namespace, "--", "sh", "-c", _CPU_STAT)
    )
    return {name: int(value) for name, value in (line.split() for line in text.splitlines())}


def throttling(
    before: Mapping[str, int], after: Mapping[str, int], seconds: float
) -> tuple[int, int, float]:
    """Return periods, throttled periods, and the throttled share of the time.

    Args:
        before: contents of `cpu.stat`.
        after: the same, later.
        seconds: between them.
    """

    def added(name: str) -> int:
        return after.get(name, 0) - before.get(name, 0)

    throttled_s = added("throttled_usec") / 1e6 + added("throttled_time") / 1e9
    return added("nr_periods"), added("nr_throttled"), throttled_s / seconds
