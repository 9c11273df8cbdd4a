"""Releases that can't work: their cause is named. A waiting worker goes on when it can."""

from __future__ import annotations

import contextlib
from functools import partial

from tests.kube.cluster import wait
from tests.kube.kafka import service
from tests.kube.registry import Happened, scenario
from tests.kube.release import Release, Values, merged, now
from tests.kube.site import Site
from tests.kube.symptoms import Cause, require
from tests.kube.verdicts import Failed

_NAMED_S = 180  # their workers start on two cores at once
_NOTICED_S = 60

# One worker, and no room reserved: most of them never start.
ONE: Values = {"replicaCount": 1, "resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}}


@scenario(order=210)
def causes_are_named(site: Site) -> Happened:
    """Releases with a fault each: every cause is named where a person looks."""
    with contextlib.ExitStack() as undo:
        releases = {
            name: site.new(name, values=merged(ONE, values)) for name, values in faults().items()
        }
        # In reverse: all are removed at once, before anything waits for the pods of one.
        for release in releases.values():
            undo.callback(release.uninstall)
        for release in releases.values():
            undo.callback(release.remove)
            release.install()
        for name, cause in _causes(site).items():
            wait("the cause is named", partial(require, releases[name], cause), _NAMED_S)
        figures = _waiting_ends(site, undo, releases["no-topic"], releases["no-broker"])
    return Happened(f"{len(releases)} causes named, 2 waits ended", figures=figures)


def faults() -> dict[str, Values]:
    """Return the values of each faulty release."""
    login = {"setting": "kafka.sasl_password", "secretName": "kafka-login", "key": "password"}
    return {
        "no-secret": {"secrets": [login]},
        "no-image": {"image": {"repository": "registry.invalid/it", "pullPolicy": "IfNotPresent"}},
        "no-topic": {},
        "no-broker": {"settings": {"kafka": {"bootstrap_servers": "late:9092"}}},
        "no-model": {"settings": {"model": {"name": "my-org/no-such-model"}}},
        "no-room": {"resources": {"limits": {"memory": "200Mi"}}},
        # Above what certainly does not do, and below what the libraries and the model take.
        "little-room": {"resources": {"limits": {"memory": "290Mi"}}},
        "no-sense": {
            "settings": {"rebalance_drain_timeout": 30, "kafka": {"max_poll_interval": 25}}
        },
    }


def _causes(site: Site) -> dict[str, Cause]:
    """Return the words about each of them, those that are there first before the others."""
    crash = ("CrashLoopBackOff", "Error", "OOMKilled", "Running")
    return {
        "no-secret": Cause(("ContainerCreating", "Init:0/1"), ('secret "kafka-login" not found',)),
        "no-image": Cause(
            ("ImagePullBackOff", "ErrImagePull"), ('Failed to pull image "registry.invalid/it',)
        ),
        "no-sense": Cause(
            crash,
            ("Exit Code:    2", "rebalance_drain_timeout (30) must be below", "(25)"),
            restarts=True,
        ),
        "no-topic": Cause(
            ("Running",), logged=("waiting for topics", "no-topic.posts", "topics create")
        ),
        "no-broker": Cause(
            ("Running",), logged=("broker", "late:9092", "the host name can't be resolved")
        ),
        "no-model": Cause(
            (*crash, "Init:0/1", "Init:Error", "Init:CrashLoopBackOff"),
            ("my-org/no-such-model", "the hub at ", "can't be reached", "HTTPS_PROXY"),
            restarts=True,
        ),
        "little-room": Cause(
            crash,
            ("OOMKilled", "Exit Code:    137"),
            ("memory limit is tight", "290 MiB"),
            restarts=True,
        ),
        "no-room": Cause(crash, ("needs at least", "of memory", "limit is 200 MiB"), restarts=True),
    }


def _waiting_ends(
    site: Site, undo: contextlib.ExitStack, no_topic: Release, no_broker: Release
) -> dict[str, float]:
    """Bring what two of them wait for; return how long each took to notice."""
    for release, word in ((no_topic, "no-topic.posts"), (no_broker, "late:9092")):
        # While its first attempt lasts, a worker only says that it loads the model.
        wait("/readyz names the cause", partial(_unready, release, word), _NOTICED_S)
    no_broker.create_topics()
    no_topic.create_topics()
    topic_s = _ready_after(no_topic)
    late = service("late", site.namespace)
    undo.callback(site.cluster.kubectl, "delete", "service", "late", "-n", site.namespace)
    site.cluster.kubectl("apply", "-f", "-", given=late)
    return {"ready_after_topics_s": topic_s, "ready_after_broker_s": _ready_after(no_broker)}


def _unready(release: Release, word: str) -> bool:
    status, reason = release.fetch("/readyz")
    if status != 503 or word not in reason:
        raise Failed(f"/readyz of {release.name} says {status} {reason.strip()}")
    return True


def _ready_after(release: Release) -> float:
    begun = now()
    release.wait_ready(_NOTICED_S)
    return round(now() - begun, 1)
