"""Crash loops beside healthy workers of the same group, under load."""

from __future__ import annotations

from tests.kube.cluster import wait
from tests.kube.registry import Happened, scenario
from tests.kube.release import Release, Values, containers, merged
from tests.kube.symptoms import seen
from tests.kube.verdicts import Failed

_CRASHES = 2
ONE: Values = {"replicaCount": 1, "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}}
TOO_SMALL: Values = {"resources": {"limits": {"memory": "200Mi"}}}
_LOOPED_S = 240

# Python runs a module of this name in every process, before anything else. PID 1 of a container
# can't kill itself with SIGKILL; `_exit` runs no code of the worker either.
_DIES_AT_WORK = """
import os, threading, time, urllib.request

def watch():
    while True:
        time.sleep(0.2)
        try:
            with urllib.request.urlopen("http://127.0.0.1:9100/metrics", timeout=2) as answer:
                lines = answer.read().decode().splitlines()
        except OSError:
            continue
        series = [line for line in lines if line.startswith("streamlabel_records_published_total")]
        if sum(float(line.rpartition(" ")[2]) for line in series) >= 20:
            os._exit(137)

threading.Thread(target=watch, daemon=True).start()
"""


@scenario(under="at_least_once", order=80)
def crash_loop_at_start(release: Release) -> Happened:
    """A pod of the same group has too little memory for its model, and never gets to work."""
    return _beside(release, TOO_SMALL, planned=True)


@scenario(under="exactly_once", order=180)
def crash_loop_at_work(release: Release) -> Happened:
    """A pod of the same group joins it, labels some records and dies, again and again."""
    name = f"{release.name}-dies"
    things = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": release.namespace},
        "data": {"sitecustomize.py": _DIES_AT_WORK},
    }
    release.cluster.kubectl("apply", "-f", "-", given=things)
    values: Values = {
        "extraEnv": [{"name": "PYTHONPATH", "value": "/dies"}],
        "extraVolumes": [{"name": "dies", "configMap": {"name": name}}],
        "extraVolumeMounts": [{"name": "dies", "mountPath": "/dies"}],
    }
    try:
        return _beside(release, values, planned=False)
    finally:
        release.cluster.kubectl("delete", "configmap", name, "-n", release.namespace)


def _beside(release: Release, values: Values, *, planned: bool) -> Happened:
    """Let a second release join the group of the first, and crash; the first goes on."""
    before = containers(release.wait_ready())
    looping = Release(
        release.cluster,
        release.kafka,
        release.image,
        f"{release.name}-loop",
        release.delivery,
        merged(ONE | {"settings": _same_group(release)}, values),
    )
    try:
        looping.install()
        wait(
            f"{looping.name} crashes {_CRASHES} times",
            lambda: seen(looping).restarts >= _CRASHES,
            _LOOPED_S,
        )
    finally:
        looping.uninstall()
    if containers(release.wait_ready()) != before:
        raise Failed("a healthy worker was restarted too")
    return Happened(f"crashed {_CRASHES} times beside {len(before)} workers", planned=planned)


def _same_group(release: Release) -> Values:
    settings: Values = {}
    for path, value in release.topics.items():
        section, _, option = path.partition(".")
        settings.setdefault(section, {})[option] = value
    return settings
