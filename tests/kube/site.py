"""The place of the scenarios: a cluster with a broker, and releases in a namespace."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass

from tests.kube.cluster import Cluster
from tests.kube.kafka import Kafka
from tests.kube.release import Release, Values
from tests.kube.verdicts import Delivery, Failed


@dataclass(frozen=True)
class Site:
    """The place of all scenarios.

    Attributes:
        image: the worker's image, `repository:tag`, in the cluster.
        namespace: of broker and releases.
    """

    cluster: Cluster
    kafka: Kafka
    image: str

    @property
    def namespace(self) -> str:
        return self.kafka.namespace

    def new(
        self, name: str, delivery: Delivery = "at_least_once", values: Values | None = None
    ) -> Release:
        """Return a release that is not installed yet, and has no topics."""
        return Release(self.cluster, self.kafka, self.image, name, delivery, values or {})

    @contextlib.contextmanager
    def release(
        self, name: str, delivery: Delivery = "at_least_once", values: Values | None = None
    ) -> Iterator[Release]:
        """Create topics and install; uninstall afterwards. Waits for no pod."""
        release = self.new(name, delivery, values)
        try:
            release.create_topics()
            release.install()
            yield release
        finally:
            release.uninstall()


@contextlib.contextmanager
def opened(cluster: Cluster, image: str, namespace: str) -> Iterator[Site]:
    """Create the namespace with a broker in it; remove both afterwards."""
    if f"namespace/{namespace}" in cluster.kubectl("get", "namespaces", "-o", "name").split():
        raise Failed(f"the namespace {namespace} exists: delete it, or choose --namespace")
    cluster.kubectl("create", "namespace", namespace)
    site = Site(cluster, Kafka(cluster, namespace), image)
    try:
        site.kafka.start()
        yield site
    finally:
        try:
            cluster.kubectl("delete", "namespace", namespace, "--timeout=100s", timeout=120)
        finally:
            shutil.rmtree(site.kafka.folder, ignore_errors=True)
