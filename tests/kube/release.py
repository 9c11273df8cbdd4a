"""One `helm install` with topics and a consumer group of its own, and records to label."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.kube.cluster import Cluster, end, wait
from tests.kube.figures import is_ready
from tests.kube.kafka import Kafka
from tests.kube.verdicts import Delivery, Failed, Tally

CHART = Path(__file__).parents[2] / "deploy" / "chart"
PARTITIONS = 6
PORT = 9100
RATE = 60.0  # records a second: far below what three replicas can do, so a stall stands out
READY_S = 240  # seconds on a busy machine; a replica with a CPU to itself takes 10

Values = dict[str, Any]


@dataclass(frozen=True)
class Observed:
    """The audit so far, and the figures of a window of time.

    Attributes:
        members: ids of the consumer group's, now; a static one's begins with its name.
        stall_s: longest time in which a partition had no result.
        rate: results a second.
        first_s, last_s: from the start of the window to its first and its last result.
    """

    tally: Tally
    members: tuple[str, ...] = ()
    stall_s: float = 0.0
    rate: float = 0.0
    results: int = 0
    first_s: float = 0.0
    last_s: float = 0.0


@dataclass
class Release:
    """A release in the site's namespace. The constructor creates nothing.

    Attributes:
        name: of the release, of its objects, of its group, and the beginning of its topics' names.
        delivery: the setting of that name.
        values: the chart's values, over those that every release here has.
        audited: the last audit; `observe` replaces it.
    """

    cluster: Cluster
    kafka: Kafka
    image: str
    name: str
    delivery: Delivery = "at_least_once"
    values: Values = field(default_factory=dict)
    audited: Tally = field(default_factory=Tally)
    _feed: subprocess.Popen[str] | None = None

    @property
    def namespace(self) -> str:
        return self.kafka.namespace

    @property
    def topics(self) -> dict[str, str]:
        """The options that name the topics and the group."""
        return {
            "input.topic": f"{self.name}.posts",
            "output.topic": f"{self.name}.labels",
            "output.dead_letter_topic": f"{self.name}.dead",
            "kafka.group_id": self.name,
        }

    def create_topics(self) -> None:
        names = [name for path, name in self.topics.items() if path.endswith("topic")]
        self.kafka.create_topics(*names, partitions=PARTITIONS)

    def install(self, *options: str) -> None:
        """Install the chart, without waiting for pods."""
        self._helm("install", *options)

    def upgrade(self, values: Values) -> None:
        """Change values, which stay for later upgrades; does not wait for pods."""
        self.values = merged(self.values, values)
        self._helm("upgrade")

    def restart(self) -> None:
        """Restart the pods in turn, as `kubectl rollout restart` does; does not wait for them."""
        kind = "deployment" if self.delivery == "at_least_once" else "statefulset"
        self.cluster.kubectl("rollout", "restart", f"{kind}/{self.name}", "-n", self.namespace)

    def uninstall(self) -> None:
        """End the feed and uninstall; wait until the pods are gone."""
        try:
            self.end_feed()
        finally:
            self.remove()
            wait(f"no pod of {self.name} is left", lambda: not self.pods(), 90)

    def remove(self) -> None:
        """Uninstall if it is installed; does not wait for its pods."""
        self.cluster.helm("uninstall", self.name, "-n", self.namespace, "--ignore-not-found")

    def all_values(self) -> Values:
        """Return the values that the chart is installed with."""
        repository, _, tag = self.image.rpartition(":")
        settings: Values = {"delivery": self.delivery}
        for path, value in (self.topics | {"kafka.bootstrap_servers": self.kafka.servers}).items():
            section, _, option = path.partition(".")
            settings.setdefault(section, {})[option] = value
        common = {
            "fullnameOverride": self.name,
            "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
            "replicaCount": 3,
            # One node of two cores has no room for three requests of a whole CPU.
            "resources": {
                "requests": {"cpu": "200m", "memory": "1Gi"},
                "limits": {"cpu": "1", "memory": "2Gi"},
            },
            "settings": settings,
        }
        return merged(common, self.values)

    def pods(self) -> list[dict[str, Any]]:
        """Return the pods of the release that have not ended, oldest first."""
        label = f"app.kubernetes.io/instance={self.name}"
        found = self.cluster.get("pods", "-n", self.namespace, "-l", label)["items"]
        live = [pod for pod in found if pod["status"]["phase"] in ("Pending", "Running")]
        return sorted(live, key=lambda pod: (pod["metadata"]["creationTimestamp"], name_of(pod)))

    def wait_ready(self, seconds: float = READY_S) -> list[dict[str, Any]]:
        """Wait until all replicas are ready and no other pod is left; return them."""
        replicas = self.all_values()["replicaCount"]

        def ready() -> list[dict[str, Any]]:
            pods = self.pods()
            whole = len(pods) == replicas and all(map(is_ready, pods))
            return pods if whole else []

        found: list[dict[str, Any]] = wait(
            f"{replicas} pods of {self.name} are ready", ready, seconds
        )
        return found

    def wait_replaced(self, old: list[dict[str, Any]], seconds: float = 2 * READY_S) -> None:
        """Wait until none of the old pods is left and all replicas are ready."""
        uids = {pod["metadata"]["uid"] for pod in old}
        wait(
            f"the pods of {self.name} are replaced",
            lambda: not uids & {pod["metadata"]["uid"] for pod in self.pods()},
            seconds,
        )
        self.wait_ready()

    def wait_restarted(self, old: list[dict[str, Any]], seconds: float = 2 * READY_S) -> None:
        """Wait until every container of these pods was started again and is ready."""
        before = containers(old)
        wait(
            f"the containers of {self.name} are started again",
            lambda: not before & containers(self.pods()),
            seconds,
        )
        self.wait_ready()

    def start_feed(self, rate: float = RATE) -> None:
        """Produce records until `end_feed`."""
        self._feed = self.cluster.inside("tests.kube.feed", *self._feed_options(rate, 0))

    def forget_feed(self) -> None:
        """End the producer at once, as the end of its node does."""
        feed, self._feed = self._feed, None
        if feed:
            end(feed)
            feed.communicate()

    def end_feed(self) -> None:
        """End the producer; it first waits until every record is acknowledged.

        Raises:
            Failed: it had ended by itself.
        """
        feed, self._feed = self._feed, None
        if feed is None:
            return
        try:
            output, error = feed.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            output, error = "", "its last records were not acknowledged"
        finally:
            end(feed)
        if feed.returncode or not output:
            raise Failed(f"the producer of {self.name}: {error.strip() or 'ended by itself'}")

    def produce(self, count: int, partitions: int = PARTITIONS) -> None:
        """Produce records at once into some partitions; wait until they are acknowledged."""
        self.cluster.ask("tests.kube.feed", *self._feed_options(0, count, partitions))

    def observe(self, since: float | None = None, seconds: float = 120) -> Observed:
        """Wait until the records so far are committed, and audit all of them.

        Args:
            since: start of the window of the figures, as `time.time()`.
            seconds: limit for the wait.

        Raises:
            Failed: the backlog did not go away, or the topics could not be read.
        """
        options = self.topics | {
            "kafka.bootstrap_servers": self.kafka.servers,
            "delivery": self.delivery,
        }
        window = [f"--since={since * 1000:.0f}"] if since else []
        report = json.loads(
            self.cluster.ask(
                "tests.kube.observe",
                *("--settings", json.dumps(options), "--wait", str(seconds), *window),
                timeout=seconds + 120,
            )
        )
        if report["lag"]:
            raise Failed(f"{report['lag']:,} records of {self.name} wait for {seconds:g} s")
        self.audited = Tally.of(report)
        return Observed(
            self.audited,
            members=tuple(report["members"]),
            stall_s=report.get("stall_s", 0.0),
            rate=report.get("rate", 0.0),
            results=report.get("results", 0),
            first_s=report.get("first_s", 0.0),
            last_s=report.get("last_s", 0.0),
        )

    def fetch(self, path: str, host: str = "") -> tuple[int, str]:
        """Return status and body of a path of the worker, through the Service by default."""
        host = host or f"{self.name}.{self.namespace}.svc.cluster.local"
        answer = self.cluster.ask("tests.kube.fetch", f"http://{host}:{PORT}{path}")
        status, _, body = answer.partition("\n")
        return int(status), body

    def _feed_options(self, rate: float, count: int, partitions: int = PARTITIONS) -> list[str]:
        return [
            f"--bootstrap-servers={self.kafka.servers}",
            f"--topic={self.topics['input.topic']}",
            f"--partitions={partitions}",
            f"--rate={rate}",
            f"--count={count}",
        ]

    def _helm(self, verb: str, *options: str) -> None:
        place = ["-n", self.namespace, "--values", "-"]
        command = [verb, self.name, str(CHART), *place, *options]
        self.cluster.helm(*command, given=self.all_values())


def merged(low: Mapping[str, Any], high: Mapping[str, Any]) -> Values:
    """Return `low` with the values of `high` over it, map by map, as Helm merges them."""
    result = dict(low)
    for key, value in high.items():
        below = result.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping):
            result[key] = merged(below, value)
        else:
            result[key] = value
    return result


def containers(pods: list[dict[str, Any]]) -> set[str]:
    """Return the ids of the containers of pods."""
    statuses = [status for pod in pods for status in pod["status"].get("containerStatuses", [])]
    return {status["containerID"] for status in statuses if status.get("containerID")}


def name_of(pod: Mapping[str, Any]) -> str:
    """Return a pod's name."""
    name: str = pod["metadata"]["name"]
    return name


def now() -> float:
    """Return the wall clock, seconds: the start of a window of `Release.observe`."""
    return time.time()
