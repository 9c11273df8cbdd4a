"""Faults under load: no record is lost, and exactly once, no record has two results."""

from __future__ import annotations

from tests.kube.cluster import wait
from tests.kube.registry import Happened, scenario
from tests.kube.release import Release, containers, name_of
from tests.kube.verdicts import Failed


@scenario(under="at_least_once", order=50)
def pod_deleted_by_force(release: Release) -> Happened:
    """A pod is deleted with `--force --grace-period=0`."""
    return _pod_deleted(release)


@scenario(under="exactly_once", order=130)
def pod_deleted_by_force_exactly_once(release: Release) -> Happened:
    """The same of a StatefulSet: the next pod has the same name."""
    return _pod_deleted(release)


def _pod_deleted(release: Release) -> Happened:
    pods = release.wait_ready()
    name = name_of(pods[0])
    release.cluster.kubectl(
        *("delete", "pod", name, "-n", release.namespace, "--force", "--grace-period=0")
    )
    release.wait_replaced(pods[:1])
    return Happened("1 of 3 pods deleted by force", planned=False)


@scenario(under="at_least_once", order=60)
def broker_deleted(release: Release) -> Happened:
    """The broker's pod is deleted and comes back at another address behind the same name."""
    return _broker_deleted(release, force=False)


@scenario(under="at_least_once", order=70)
def broker_deleted_by_force(release: Release) -> Happened:
    """The same with `--force --grace-period=0`."""
    return _broker_deleted(release, force=True)


@scenario(under="exactly_once", order=140)
def broker_deleted_exactly_once(release: Release) -> Happened:
    """The broker's pod is deleted, with its transactions open."""
    return _broker_deleted(release, force=False)


def _broker_deleted(release: Release, *, force: bool) -> Happened:
    before = containers(release.wait_ready())
    release.kafka.replace(force=force)
    release.observe()  # the backlog is gone before the pods are looked at
    after = containers(release.wait_ready())
    if after != before:
        raise Failed("a worker was restarted, although only the broker was away")
    return Happened("the broker came back at another address", planned=False)


@scenario(under="exactly_once", order=190, disturbs=True)
def node_restarted(release: Release) -> Happened:
    """Every process of the node ends at once, and the node starts again."""
    pods = release.wait_ready()
    release.cluster.restart()
    release.forget_feed()  # it ended with the node
    release.wait_restarted(pods)
    wait("Kafka answers again", release.kafka.wait, 120)
    release.start_feed()
    return Happened("the node restarted", planned=False)
