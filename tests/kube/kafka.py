"""Apache Kafka as a pod: deleted, it comes back at another address with its data.

A headless Service gives the pod its name, so the name leads to another address after the pod was
replaced. The data lie in a folder of the node.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kube.cluster import Cluster, wait
from tests.kube.figures import is_ready
from tests.kube.verdicts import Failed

IMAGE = "apache/kafka:4.3.1"
POD = "kafka-0"
_UID = 1000  # of the image's user


@dataclass(frozen=True)
class Kafka:
    """The broker of a namespace."""

    cluster: Cluster
    namespace: str

    @property
    def servers(self) -> str:
        """The address for clients in any namespace."""
        return f"kafka.{self.namespace}.svc.cluster.local:9092"

    @property
    def folder(self) -> Path:
        """The folder of the node, which is this machine, with the broker's data."""
        return self.cluster.folder / f"kafka-{self.namespace}"

    def start(self) -> None:
        """Create the broker and wait until clients can connect."""
        for thing in objects(self.namespace, self.servers, str(self.folder)):
            self.cluster.kubectl("apply", "-f", "-", given=thing)
        self.wait()

    def wait(self, seconds: float = 120) -> str:
        """Wait until the pod is ready, and return its address."""
        pod = wait("Kafka's pod is ready", self._ready, seconds)
        address: str = pod["status"]["podIP"]
        return address

    def replace(self, *, force: bool) -> str:
        """Delete the pod, and return the address at which the next one is ready.

        Raises:
            Failed: it came back at the same address, so nothing was proved.
        """
        old = self._ready()
        if old is None:
            raise Failed("Kafka's pod is not ready before it is deleted")
        options = ["--force", "--grace-period=0"] if force else []
        self.cluster.kubectl("delete", "pod", POD, "-n", self.namespace, "--wait=false", *options)
        wait("Kafka's pod is deleted", lambda: self._uid() != old["metadata"]["uid"], 90)
        address = self.wait()
        _require_other(old["status"]["podIP"], address)
        return address

    @contextlib.contextmanager
    def away(self) -> Iterator[None]:
        """Take the pod away at once, and bring it back at another address.

        Raises:
            Failed: it came back at the same address.
        """
        old, place = self.wait(), ("-n", self.namespace, "--ignore-not-found")
        try:
            self._scale(0)
            self.cluster.kubectl("delete", "pod", POD, *place, "--force", "--grace-period=0")
            yield
        finally:
            self._scale(1)
            new = self.wait()
        _require_other(old, new)

    def _scale(self, replicas: int) -> None:
        self.cluster.kubectl(
            *("scale", "statefulset/kafka", "-n", self.namespace, f"--replicas={replicas}")
        )

    def create_topics(self, *names: str, partitions: int) -> None:
        """Create topics that do not exist."""
        settings = {"kafka.bootstrap_servers": self.servers}
        self.cluster.ask(
            "tests.kube.topics",
            *("--settings", json.dumps(settings)),
            *("--partitions", str(partitions)),
            *names,
        )

    def _ready(self) -> dict[str, Any] | None:
        pod = self.cluster.get("pod", POD, "-n", self.namespace)
        return pod if is_ready(pod) else None

    def _uid(self) -> str | None:
        found = self.cluster.get("pods", "-n", self.namespace, "-l", "app=kafka")["items"]
        return found[0]["metadata"]["uid"] if found else None


def _require_other(old: str, new: str) -> None:
    if old == new:
        raise Failed(f"Kafka came back at the same address, {new}: nothing was proved")


def objects(namespace: str, servers: str, folder: str) -> list[dict[str, Any]]:
    """Return the Service and the StatefulSet of one broker with its data in `folder`."""
    labels = {"app": "kafka"}
    stateful_set = {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": "kafka", "namespace": namespace},
        "spec": {
            "serviceName": "kafka",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": _pod_spec(servers, folder)},
        },
    }
    return [service("kafka", namespace), stateful_set]


def service(name: str, namespace: str) -> dict[str, Any]:
    """Return a headless Service: the broker's pod has its name at any address."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "clusterIP": "None",
            "selector": {"app": "kafka"},
            "ports": [{"name": "kafka", "port": 9092}],
        },
    }


def _pod_spec(servers: str, folder: str) -> dict[str, Any]:
    mount = {"name": "data", "mountPath": "/var/lib/kafka/data"}
    return {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,  # KAFKA_PORT would be taken for a setting
        "terminationGracePeriodSeconds": 30,
        # A folder of the node belongs to root.
        "initContainers": [
            {
                "name": "folder",
                "image": IMAGE,
                "command": ["chown", f"{_UID}", mount["mountPath"]],
                "securityContext": {"runAsUser": 0},
                "volumeMounts": [mount],
            }
        ],
        "containers": [
            {
                "name": "kafka",
                "image": IMAGE,
                "env": [{"name": name, "value": text} for name, text in _variables(servers)],
                "ports": [{"containerPort": 9092}],
                "readinessProbe": {"tcpSocket": {"port": 9092}, "periodSeconds": 1},
                "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}},
                "volumeMounts": [mount],
            }
        ],
        "volumes": [{"name": "data", "hostPath": {"path": folder, "type": "DirectoryOrCreate"}}],
    }


def _variables(servers: str) -> list[tuple[str, str]]:
    one_replica = (
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_REPLICATION_FACTOR",
        "KAFKA_SHARE_COORDINATOR_STATE_TOPIC_MIN_ISR",
    )
    return [
        ("CLUSTER_ID", "iycxwasqRs2uiZcsihHXdA"),
        ("KAFKA_NODE_ID", "1"),
        ("KAFKA_PROCESS_ROLES", "broker,controller"),
        ("KAFKA_LISTENERS", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("KAFKA_ADVERTISED_LISTENERS", f"PLAINTEXT://{servers}"),
        ("KAFKA_LISTENER_SECURITY_PROTOCOL_MAP", "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT"),
        ("KAFKA_INTER_BROKER_LISTENER_NAME", "PLAINTEXT"),
        ("KAFKA_CONTROLLER_LISTENER_NAMES", "CONTROLLER"),
        ("KAFKA_CONTROLLER_QUORUM_VOTERS", "1@localhost:9093"),
        ("KAFKA_LOG_DIRS", "/var/lib/kafka/data/logs"),
        ("KAFKA_AUTO_CREATE_TOPICS_ENABLE", "false"),
        ("KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS", "3"),  # fifty take a small machine seconds to load
        ("KAFKA_TRANSACTION_STATE_LOG_NUM_PARTITIONS", "3"),
        ("KAFKA_HEAP_OPTS", "-Xms256m -Xmx512m"),
        *((name, "1") for name in one_replica),
    ]
