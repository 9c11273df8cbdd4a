"""KEDA scales by lag: from zero, not above what has lag, through an outage, and to zero."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from tests.kube.cluster import wait
from tests.kube.registry import Happened, scenario
from tests.kube.release import PARTITIONS, Observed, Release, Values, now
from tests.kube.site import Site
from tests.kube.verdicts import Failed, Tally, broken

_WITH_LAG = 2  # partitions that get records
_COOLDOWN_S = 10
_AWAY_S = _COOLDOWN_S + 10
_FIRST = 3000  # records
_SECOND = 20_000  # more than two workers label until the broker is away

# Quick, and as wide as the topic: only the lag keeps KEDA below it.
_VALUES: Values = {
    "replicaCount": 1,
    "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}},
    "keda": {
        "enabled": True,
        "lagThreshold": 200,
        "maxReplicaCount": PARTITIONS,
        "pollingInterval": 2,
        "cooldownPeriod": _COOLDOWN_S,
        "advanced": {
            "horizontalPodAutoscalerConfig": {
                "behavior": {
                    "scaleUp": {"stabilizationWindowSeconds": 0},
                    "scaleDown": {"stabilizationWindowSeconds": 10},
                }
            }
        },
    },
}


@scenario(order=220)
def keda_scales_by_lag(site: Site) -> Happened:
    """0 -> n -> 0 by lag, nothing twice, and not to zero while the broker is away with lag left."""
    with site.release("scaled", values=_VALUES) as release:
        watched = _Replicas(release)
        watched.until("no worker without lag", lambda: watched.now == 0, 90)
        begun = now()
        release.produce(_FIRST, partitions=_WITH_LAG)
        watched.until("KEDA starts a worker", lambda: watched.now > 0, 60)
        started_s = now() - begun
        watched.until(f"{_WITH_LAG} are ready", lambda: watched.ready == _WITH_LAG, 180)
        scaled_s = now() - begun
        first = release.observe(begun)
        if phrases := broken(Tally(), first.tally, release.delivery, planned=True):
            raise Failed(f"scaled up, with the broker there: {', '.join(phrases)}")
        release.produce(_SECOND, partitions=_WITH_LAG)
        seen = now() + 1  # KEDA's times have whole seconds
        # The lag was zero before, perhaps for longer than the cooldown: KEDA must know the new one.
        watched.until("KEDA knows of the lag", lambda: watched.active_at > seen, 60)
        watched.until("a worker is ready", lambda: watched.ready > 0, 180)
        gone, least = _without_broker(release, watched)
        second = release.observe(gone)
        require_lag_was_left(second)
        if not least:
            raise Failed("KEDA scaled to zero while the broker was away and records waited")
        emptied = gone + second.last_s
        watched.until("no worker without lag", lambda: not watched.now, 120)
    if watched.most > _WITH_LAG:
        raise Failed(f"KEDA asked for {watched.most} workers for {_WITH_LAG} partitions with lag")
    figures = {
        "first_worker_s": started_s,
        "first_result_s": first.first_s,
        "scaled_up_s": scaled_s,
        "scaled_to_zero_s": now() - emptied,
    }
    rounded = {name: round(value, 1) for name, value in figures.items()}
    return Happened(
        f"0 -> {watched.most} -> 0, the broker away meanwhile",
        planned=False,  # its end was none
        figures=rounded,
        tally=second.tally,
    )


class _Replicas:
    """The replicas that KEDA asks for, looked at again and again."""

    def __init__(self, release: Release) -> None:
        self._release = release
        self.now = self.ready = self.most = 0
        self.active_at = 0.0  # when KEDA last saw lag, as `now`

    def until(self, what: str, happened: Callable[[], bool], seconds: float) -> None:
        """Look until `happened`."""
        wait(what, lambda: self.look() and happened(), seconds)

    def look(self) -> bool:
        """Read the numbers; True, for `wait`."""
        cluster, release = self._release.cluster, self._release
        found = cluster.get("deployment", release.name, "-n", release.namespace)
        self.now = found["spec"]["replicas"]
        self.ready = found.get("status", {}).get("readyReplicas", 0)
        self.most = max(self.most, self.now)
        scaler = cluster.get("scaledobject", release.name, "-n", release.namespace)
        if last := scaler.get("status", {}).get("lastActiveTime"):
            self.active_at = datetime.fromisoformat(last).timestamp()
        return True


def require_lag_was_left(after: Observed) -> None:
    """Check that records were labelled after the broker had gone; nobody produced any then.

    Raises:
        Failed: all were labelled before, so KEDA had a reason to scale to zero.
    """
    if not after.results:
        raise Failed("no record was left to label when the broker went: nothing was proved")


def _without_broker(release: Release, watched: _Replicas) -> tuple[float, int]:
    """Take the broker away for longer than the cooldown, and check that KEDA says so.

    Returns when it had gone, and the smallest number of replicas since.
    """
    with release.kafka.away():
        begun, least = now(), watched.now
        while now() - begun < _AWAY_S:
            watched.look()
            least = min(least, watched.now)
        said = release.cluster.kubectl(
            *("describe", "scaledobject", release.name, "-n", release.namespace)
        )
    if "KEDAScalerFailed" not in said or "kafka" not in said:
        raise Failed(f"the ScaledObject does not say that the broker is away:\n{said}")
    return begun, least
