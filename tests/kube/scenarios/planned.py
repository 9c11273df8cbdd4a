"""Planned changes of a release with delivery = "at_least_once": no record may have two results."""

from __future__ import annotations

from tests.kube.cluster import wait
from tests.kube.figures import metric, ready_after
from tests.kube.registry import Happened, scenario
from tests.kube.release import Release, name_of, now
from tests.kube.verdicts import Failed

LABELLED = "streamlabel_messages_total"


@scenario(under="at_least_once", order=10)
def first_labels(release: Release) -> Happened:
    """Records are labelled, and the Service answers with metrics."""
    pods = release.wait_ready()
    times = [seconds for pod in pods if (seconds := ready_after(pod)) is not None]

    def labelled() -> float:
        status, text = release.fetch("/metrics")
        if status != 200:
            raise Failed(f"/metrics answers {status}")
        return sum(metric(text, LABELLED).values())

    wait(f"{LABELLED} is above 0", labelled, 60)
    return Happened("labelled and scraped", figures={"ready_after_s": max(times)})


@scenario(under="at_least_once", order=40)
def rollout(release: Release) -> Happened:
    """`kubectl rollout restart` replaces three pods."""
    pods, begun = release.wait_ready(), now()
    release.restart()
    release.wait_replaced(pods)
    return Happened(f"{len(pods)} pods replaced", figures={"rollout_s": round(now() - begun, 1)})


@scenario(under="at_least_once", order=60)
def pod_deleted_by_force(release: Release) -> Happened:
    """A pod is deleted with `--force --grace-period=0`."""
    pods = release.wait_ready()
    name = name_of(pods[0])
    release.cluster.kubectl(
        *("delete", "pod", name, "-n", release.namespace, "--force", "--grace-period=0")
    )
    release.wait_replaced(pods[:1])
    return Happened("1 of 3 pods deleted by force", planned=False)
