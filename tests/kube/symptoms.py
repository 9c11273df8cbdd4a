"""The words of kubectl about a release, as a person sees them: pods, their events, their logs."""

from __future__ import annotations

from dataclasses import dataclass

from tests.kube.release import Release
from tests.kube.verdicts import Failed

_STATUS, _RESTARTS = 2, 3  # columns of `kubectl get pods`


@dataclass(frozen=True)
class Symptoms:
    """The words of kubectl about the pods of one release.

    Attributes:
        statuses: column STATUS of `kubectl get pods`, one a pod.
        restarts: column RESTARTS, the highest.
        described: `kubectl describe pods`: states, last words, events.
        log: `kubectl logs` of all containers, the ended ones first.
    """

    statuses: tuple[str, ...]
    restarts: int
    described: str
    log: str


@dataclass(frozen=True)
class Cause:
    """The words that have to name the cause of a fault.

    Attributes:
        status: what column STATUS may say.
        described: texts that all appear in `kubectl describe pods`.
        logged: texts that all appear in one line of the log.
        restarts: False if a restart is a fault itself.
    """

    status: tuple[str, ...]
    described: tuple[str, ...] = ()
    logged: tuple[str, ...] = ()
    restarts: bool = False


def seen(release: Release) -> Symptoms:
    """Ask kubectl about the pods of a release."""
    place = ("-n", release.namespace, "-l", f"app.kubernetes.io/instance={release.name}")
    kubectl = release.cluster.kubectl
    rows = parsed(kubectl("get", "pods", "--no-headers", *place))
    return Symptoms(
        statuses=tuple(status for status, _ in rows),
        restarts=max((restarts for _, restarts in rows), default=0),
        described=kubectl("describe", "pods", *place),
        log=_log(release, *place, "--previous") + _log(release, *place),
    )


def parsed(table: str) -> list[tuple[str, int]]:
    """Return STATUS and RESTARTS of each line of `kubectl get pods --no-headers`."""
    rows = [line.split() for line in table.splitlines() if line.strip()]
    return [(row[_STATUS], int(row[_RESTARTS])) for row in rows]


def unlike(found: Symptoms, cause: Cause) -> list[str]:
    """Return a phrase for each word that is missing; an empty list if the cause is named."""
    phrases = []
    if len(found.statuses) != 1 or found.statuses[0] not in cause.status:
        said = " ".join(found.statuses) or "nothing"
        phrases.append(f"STATUS is {said}, not {' or '.join(cause.status)}")
    if found.restarts and not cause.restarts:
        phrases.append(f"{found.restarts} restarts")
    phrases += [
        f"`kubectl describe` lacks {text!r}"
        for text in cause.described
        if text not in found.described
    ]
    lines = found.log.splitlines()
    if cause.logged and not any(all(text in line for text in cause.logged) for line in lines):
        phrases.append(f"no line of the log has {' and '.join(map(repr, cause.logged))}")
    return phrases


def require(release: Release, cause: Cause) -> bool:
    """Return True if kubectl names the cause; for `wait`.

    Raises:
        Failed: it does not; with what is missing.
    """
    if phrases := unlike(seen(release), cause):
        raise Failed(f"{release.name}: {'; '.join(phrases)}")
    return True


def _log(release: Release, *options: str) -> str:
    try:
        return release.cluster.kubectl("logs", "--all-containers", "--tail=40", *options)
    except Failed:  # no container has started, or none has ended
        return ""
