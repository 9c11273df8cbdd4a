"""Values that Helm refuses, and objects that it removes."""

from __future__ import annotations

import contextlib

from tests.kube.cluster import wait
from tests.kube.registry import Happened, scenario
from tests.kube.release import Release, Values
from tests.kube.site import Site
from tests.kube.verdicts import Failed

_LEFT_S = 60  # KEDA and the cluster remove what they made of the chart's objects
_OF_THE_CLUSTER = ("events", "events.events.k8s.io", "endpoints", "endpointslices")

# Values, and what the message has to name: the value, its place, its bound or remedy.
_WRONG: tuple[tuple[Values, tuple[str, ...]], ...] = (
    (
        {"settings": {"kafka": {"session_timeout": 0}}},
        ("/settings/kafka/session_timeout", "got 0", "want 1"),
    ),
    ({"settings": {"kafka": {"sesion_timeout": 45}}}, ("/settings/kafka", "'sesion_timeout'")),
    ({"settings": {"delivery": "twice"}}, ("/settings/delivery", "'at_least_once'")),
    ({"settings": {"kafka": {"sasl_password": "x"}}}, ("sasl_password", "secretName")),
    ({"replicas": 2}, ("'replicas'",)),
    ({"keda": {"enabled": True}}, ("keda.maxReplicaCount", "partitions")),
    ({"terminationGracePeriodSeconds": 5}, ("5", "30 s", "settings.shutdown_timeout")),
)


@scenario(order=200)
def wrong_values_are_refused(site: Site) -> Happened:
    """`helm install` names the wrong value and its bound, and installs nothing."""
    before = _things(site)
    for number, (values, words) in enumerate(_WRONG):
        _require_refusal(site.new(f"wrong-{number}", values=values), words)
    if added := _things(site) - before:
        raise Failed(f"a refused install left {', '.join(sorted(added))}")
    return Happened(f"{len(_WRONG)} values refused, nothing installed")


def _require_refusal(release: Release, words: tuple[str, ...]) -> None:
    try:
        release.install()
    except Failed as error:
        # Helm's own words: the command line before them has the values' place, but no value.
        if lacking := [word for word in words if word not in str(error)]:
            raise Failed(f"{release.values}: no {' or '.join(lacking)} in {error}") from error
        return
    release.uninstall()
    raise Failed(f"{release.values} were not refused")


_SCALED: Values = {"enabled": True, "minReplicaCount": 1, "maxReplicaCount": 1}
ALL: Values = {
    "replicaCount": 1,
    "networkPolicy": {"enabled": True},
    "dashboard": {"enabled": True},
    "podDisruptionBudget": {"enabled": True},
    "keda": _SCALED,
}
# It signs in, so KEDA does too. Its Secret is missing, so that its pod waits and costs nothing.
LOGIN: Values = {
    "replicaCount": 1,
    "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}},
    "keda": _SCALED,
    "settings": {
        "kafka": {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_username": "labeller",
        }
    },
    "secrets": [{"setting": "kafka.sasl_password", "secretName": "no-login", "key": "password"}],
}
_OPTIONAL = {
    "networkpolicy.networking.k8s.io",
    "poddisruptionbudget.policy",
    "scaledobject.keda.sh",
    "triggerauthentication.keda.sh",
}


@scenario(order=290)
def uninstall_leaves_nothing(site: Site) -> Happened:
    """`helm uninstall` removes every object, and the group has no member."""
    before = _things(site)
    with contextlib.ExitStack() as undo:
        release, waits = site.new("leaves", values=ALL), site.new("leaves-login", values=LOGIN)
        undo.callback(release.uninstall)
        undo.callback(waits.uninstall)
        release.create_topics()
        waits.install()
        release.install()
        release.wait_ready()
        installed = _things(site) - before
        release.produce(60)
        release.observe()
    kinds = {thing.partition("/")[0] for thing in installed}
    if not kinds >= _OPTIONAL:
        raise Failed(f"the chart installed {', '.join(sorted(kinds))} only")
    wait("`helm uninstall` leaves nothing", lambda: nothing_left(_things(site) - before), _LEFT_S)
    observed = release.observe()
    if observed.members:
        raise Failed(f"members are left in the group: {', '.join(observed.members)}")
    return Happened(f"{len(installed)} objects gone, the group is empty", tally=observed.tally)


def nothing_left(left: set[str]) -> bool:
    if left:
        raise Failed(", ".join(sorted(left)))
    return True


def _things(site: Site) -> set[str]:
    """Return every object of the namespace, as KIND.GROUP/NAME, but those that are by-products."""
    kubectl = site.cluster.kubectl
    kinds = kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split()
    wanted = ",".join(kind for kind in kinds if not kind.startswith(_OF_THE_CLUSTER))
    found = kubectl("get", wanted, "-n", site.namespace, "-o", "name", "--ignore-not-found")
    return set(found.split())
