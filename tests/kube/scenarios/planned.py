"""Planned changes: no record may have two results, in either delivery mode."""

from __future__ import annotations

from collections.abc import Collection

from tests.kube.cluster import wait
from tests.kube.figures import metric, ready_after
from tests.kube.registry import Happened, scenario
from tests.kube.release import Release, name_of, now
from tests.kube.site import Site
from tests.kube.verdicts import Failed

_PUBLISHED = "streamlabel_records_published_total"
_CACHE = "streamlabel_cache_bytes"
_RESTARTS = "streamlabel_process_restarts_total"
_BACKLOG = 3000  # records


@scenario(order=5)
def one_replica(site: Site) -> Happened:
    """One replica with one CPU gets ready and labels a backlog."""
    with site.release("one-replica", values={"replicaCount": 1}) as release:
        pod = release.wait_ready()[0]
        begun = now()
        release.produce(_BACKLOG)
        observed = release.observe(begun)
        figures = {
            "ready_after_s": ready_after(pod) or 0.0,
            "records_per_s": round(observed.rate, 1),
        }
        return Happened(f"{_BACKLOG:,} records in a backlog", figures=figures, tally=observed.tally)


@scenario(under="at_least_once", order=10)
def first_labels(release: Release) -> Happened:
    """Records are labelled, and the Service answers with metrics."""
    return _first_labels(release)


@scenario(under="exactly_once", order=110)
def first_labels_exactly_once(release: Release) -> Happened:
    """The same of a StatefulSet."""
    release.cluster.get("statefulset", release.name, "-n", release.namespace)
    return _first_labels(release)


def _first_labels(release: Release) -> Happened:
    release.wait_ready()
    wait(f"{_PUBLISHED} is above 0", lambda: _metrics(release, _PUBLISHED), 60)
    return Happened("labelled, and scraped through the Service")


@scenario(under="at_least_once", order=20)
def setting_changed(release: Release) -> Happened:
    """`helm upgrade` turns the cache off."""
    return _setting_changed(release)


@scenario(under="exactly_once", order=120)
def setting_changed_exactly_once(release: Release) -> Happened:
    """The same of a StatefulSet, which replaces its pods by others of the same names."""
    return _setting_changed(release)


def _setting_changed(release: Release) -> Happened:
    pods = release.wait_ready()
    hosts = [pod["status"]["podIP"] for pod in pods]
    wait(f"{_CACHE} is above 0", lambda: all(_metrics(release, _CACHE, h) for h in hosts), 60)
    begun = now()
    release.upgrade({"settings": {"cache": {"max_bytes": 0}}})
    release.wait_replaced(pods)
    figures = {"rollout_of_3_s": round(now() - begun, 1)}
    for pod in release.wait_ready():
        if used := _metrics(release, _CACHE, pod["status"]["podIP"]):
            raise Failed(f"{name_of(pod)} still has a cache: {used:g} bytes")
    return Happened(
        "helm upgrade turned the cache off in 3 pods", stall_bounded=True, figures=figures
    )


@scenario(under="at_least_once", order=30)
def rollout(release: Release) -> Happened:
    """`kubectl rollout restart` replaces three pods."""
    pods, begun = release.wait_ready(), now()
    release.restart()
    release.wait_replaced(pods)
    figures = {"rollout_of_3_s": round(now() - begun, 1)}
    return Happened(f"{len(pods)} pods replaced", stall_bounded=True, figures=figures)


@scenario(under="at_least_once", order=40)
def evicted(release: Release) -> Happened:
    """The budget allows the eviction of one pod and refuses that of a second one meanwhile."""
    return _evicted(release)


@scenario(under="exactly_once", order=125)
def evicted_exactly_once(release: Release) -> Happened:
    """The same of a StatefulSet."""
    return _evicted(release)


def _evicted(release: Release) -> Happened:
    first, second, *_ = pods = release.wait_ready()
    evict(release, name_of(first))
    try:
        evict(release, name_of(second))
    except Failed as error:
        if "disruption budget" not in str(error):
            raise
    else:
        raise Failed(f"{name_of(second)} was evicted while {name_of(first)} was not ready")
    release.wait_replaced(pods[:1])
    left = {name_of(pod) for pod in release.pods()}
    if name_of(second) not in left:
        raise Failed(f"{name_of(second)} is gone: {left}")
    return Happened("one eviction allowed, a second one refused meanwhile", stall_bounded=True)


def evict(release: Release, pod: str) -> None:
    """Ask for the eviction of a pod, as `kubectl drain` does.

    Raises:
        Failed: it was refused.
    """
    place = f"/api/v1/namespaces/{release.namespace}/pods/{pod}/eviction"
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod, "namespace": release.namespace},
    }
    release.cluster.kubectl("create", "--raw", place, "-f", "-", given=eviction)


@scenario(under="at_least_once", order=90)
def two_processes(release: Release) -> Happened:
    """`helm upgrade` gives each of two pods two processes."""
    return _two_processes(release)


@scenario(under="exactly_once", order=185)
def two_processes_exactly_once(release: Release) -> Happened:
    """The same of a StatefulSet: each process is a static member, named by pod and slot."""
    happened = _two_processes(release)
    wanted = [f"{release.name}-{pod}-{slot}" for pod in range(2) for slot in range(2)]
    # The members of before are gone after kafka.session_timeout.
    wait("four static members", lambda: require_members(release.observe().members, wanted), 120)
    return happened


def require_members(members: Collection[str], wanted: Collection[str]) -> bool:
    """Return True if these are the group's static members; for `wait`.

    Args:
        members: ids as the broker makes them: NAME-UUID.
        wanted: the names.

    Raises:
        Failed: they are others.
    """
    found = [name for name in wanted for member in members if member.startswith(f"{name}-")]
    if not sorted(found) == sorted(wanted) or len(members) != len(wanted):
        raise Failed(f"members {', '.join(members) or 'none'}, not {', '.join(wanted)}")
    return True


def _two_processes(release: Release) -> Happened:
    pods = release.wait_ready()
    release.upgrade({"replicaCount": 2, "settings": {"processes": 2}})
    release.wait_replaced(pods)
    for pod in release.wait_ready():
        text = _text(release, pod["status"]["podIP"])
        if _RESTARTS not in text:
            raise Failed(f"{name_of(pod)} has no {_RESTARTS}: it runs one process")
    return Happened("2 pods of two processes each")


def _metrics(release: Release, name: str, host: str = "") -> float:
    return sum(metric(_text(release, host), name).values())


def _text(release: Release, host: str) -> str:
    status, text = release.fetch("/metrics", host)
    if status != 200:
        raise Failed(f"/metrics answers {status}")
    return text
