"""Makes every alert fire by a fault of its own, and clear when the fault ends: `make alarms`.

Runs a worker on an Apache Kafka of its own (KAFKA_HOME) and a real Prometheus, for a few minutes.
Prints two tables: how many numbers each panel of the board has to draw, and how long each alert
took to fire and to clear. An alert is timed from its fault, or from the alert above it if they
share the fault. Exits 1 if a panel has nothing to draw, or an alert does not fire or clear.
"""

from __future__ import annotations

import contextlib
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from tests.conftest import Broker, Topics
from tests.deploy.project import ROOT, Project
from tests.deploy.test_prometheus import AT_TIMES, EMPTY
from tests.deploy.watched import (
    OPTIONS,
    PROMETHEUS,
    RATE,
    PostMaker,
    Prometheus,
    SteadyFeed,
    watched,
)
from tests.support.apache import ApacheKafka
from tests.support.own_kafka import admin_of, named
from tests.support.workers import WorkerProcess, clock
from worker.settings import read_environment

TOPICS = Topics("in", "out", "dead", "group", 3)
# Small batches, so that the worker can be overloaded; short timeouts, so that alerts fire soon.
SLOW = (
    *("--batch-forward-tokens", "64", "--batch-max-records", "8", "--max-inflight-records", "64"),
    *("--cache-max-bytes", "0", "--stall-timeout", "3", "--kafka-session-timeout", "6"),
)
# One route copies the records that are loud, the other drops those that are spam.
ROUTES = """
create_topics = true
[output]
filtered_topic = "notes"
[[routes]]
name = "loud"
path = "kind"
in = ["loud"]
topic = "loud"
also = true
[[routes]]
name = "spam"
path = "kind"
in = ["spam"]
drop = true
"""


class Alarms:
    """A watched worker, and a table row for each alert."""

    def __init__(
        self,
        kafka: ApacheKafka,
        worker: WorkerProcess,
        prometheus: Prometheus,
        feed: SteadyFeed,
        posts: PostMaker,
    ) -> None:
        self.kafka, self.worker, self.prometheus = kafka, worker, prometheus
        self.feed, self.posts = feed, posts
        self.rows: list[str] = []

    @contextlib.contextmanager
    def fault(self, description: str, *alerts: str) -> Iterator[None]:
        """Make the fault in the `with` block, then wait for its alerts to fire."""
        print(f"{description} ...", file=sys.stderr, flush=True)
        try:
            yield
            for alert in alerts:
                seconds = self.prometheus.wait_for(alert, timeout=120)
                self.rows.append(f"| {alert} | {description} | {seconds:.1f} s |")
        except AssertionError as error:
            firing = ", ".join(sorted(self.prometheus.firing()))
            self.rows.append(
                f"| {', '.join(alerts)} | {description} | NO: {error}; firing: {firing} |"
            )

    def cured(self, *alerts: str) -> None:
        """Wait for the alerts of a fault that has ended to clear."""
        for alert in alerts:
            try:
                result = f"{self.prometheus.wait_for_silence(alert, timeout=180):.1f} s"
            except AssertionError as error:
                result = f"NO: {error}"
            index = next(
                n for n, row in enumerate(self.rows) if row.startswith("| ") and alert in row
            )
            self.rows[index] += f" {result} |"

    # -- faults --------------------------------------------------------------------------------

    def posts_change(self) -> None:
        alerts = ("StreamlabelDeadLetters", "StreamlabelLabelDrift", "StreamlabelConfidenceDrift")
        with self.fault("one post in five is unreadable, the others have one label", *alerts):
            self.feed.make = self.posts.broken
        self.feed.make = self.posts.mixed
        self.cured(*alerts)

    def copies_refused(self) -> None:
        lost = "StreamlabelCopiesLost"
        self._accept("loud", "64")
        with self.fault("the topic of a route refuses the copies", lost):
            self.feed.make = self.posts.of_kind("loud")
        self.feed.make = self.posts.mixed
        self.cured(lost)

    def _accept(self, topic: str, most_bytes: str) -> None:
        resource = ConfigResource(
            ConfigResourceType.TOPIC, topic, configs={"max.message.bytes": most_bytes}
        )
        servers = self.kafka.bootstrap_servers
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
            admin.alter_configs([resource])

    def all_spam(self) -> None:
        filtered = "StreamlabelAllFiltered"
        with self.fault("every post is dropped by a route", filtered):
            self.feed.make = self.posts.of_kind("spam")
        self.feed.make = self.posts.mixed
        self.cured(filtered)

    def overload(self) -> None:
        late, skipped = ("StreamlabelLagGrowing", "StreamlabelSlow"), "StreamlabelRecordsSkipped"
        rate = self.feed.rate
        with self.fault("more records come in than the worker can label", *late):
            self.feed.rate = 3000
        self.feed.rate = rate
        with self.fault("retention deletes unread records", skipped):
            self._delete_all()
        self.cured(*late, skipped)

    def _delete_all(self) -> None:
        servers = self.kafka.bootstrap_servers
        partitions = [TopicPartition(TOPICS.input, n) for n in range(TOPICS.partitions)]
        with contextlib.closing(KafkaConsumer(bootstrap_servers=servers)) as consumer:
            ends = consumer.end_offsets(partitions)
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
            admin.delete_records(ends)

    def open_transaction(self) -> None:
        servers = self.kafka.bootstrap_servers
        producer = KafkaProducer(
            bootstrap_servers=servers, transactional_id="hangs", transaction_timeout_ms=180_000
        )
        alert = "StreamlabelInputHeldUp"
        with (
            contextlib.closing(producer),
            self.fault("another producer's transaction hangs", alert),
        ):
            producer.init_transactions()
            producer.begin_transaction()
            producer.send(TOPICS.input, value=b'{"text": "held"}', partition=0).get(timeout=30)
            producer.flush()
        with contextlib.closing(
            KafkaProducer(bootstrap_servers=servers, transactional_id="hangs")
        ) as successor:
            successor.init_transactions()  # aborts the open transaction
        self.cured(alert)

    def a_member_dies(self) -> None:
        dead, late = self._member(), self._member()
        while not dead.assignment():
            dead.poll(timeout_ms=200)
        dead._coordinator._disable_heartbeat()
        with self.fault("the group waits for a member that died", "StreamlabelJoining"):
            late.poll(timeout_ms=200)
        for member in (late, dead):
            member.close(autocommit=False, timeout_ms=1000)
        self.cured("StreamlabelJoining")

    def _member(self) -> KafkaConsumer:
        """Join the worker's group with a session timeout longer than the rule's `for`."""
        return KafkaConsumer(
            TOPICS.input,
            bootstrap_servers=self.kafka.bootstrap_servers,
            group_id=TOPICS.group,
            partition_assignment_strategy=[CooperativeStickyAssignor],
            enable_auto_commit=False,
            session_timeout_ms=120_000,
            max_poll_interval_ms=300_000,
        )

    def broker_freezes(self) -> None:
        with self.fault("the broker is frozen: connections stay open, requests get no response", "StreamlabelStalled"):  # fmt: skip
            self.kafka.nodes[0].freeze()
        self.kafka.nodes[0].thaw()
        self.cured("StreamlabelStalled")

    def broker_stops(self) -> None:
        with self.fault("the broker is stopped", "StreamlabelNotReady"):
            self.kafka.go_down()
        self.kafka.go_up()
        self.cured("StreamlabelNotReady")

    def worker_dies(self, model: Path, home: Path) -> None:
        with self.fault("the worker is killed", "StreamlabelDown"):
            self.worker.kill()
        self._start(model, home / "second.log")
        self.cured("StreamlabelDown")
        with self.fault("the worker is killed again and restarted", "StreamlabelRestarting"):
            self.worker.kill()
            self._start(model, home / "third.log")
        self.cured("StreamlabelRestarting")

    def settings_break(self, file: Path) -> None:
        alert = "StreamlabelModelNotChanged"
        with self.fault("the worker is asked to read a settings file that is not TOML", alert):
            file.write_text("[model")
            self.worker.process.send_signal(signal.SIGHUP)
        file.write_text(ROUTES)
        self.cured(alert)

    def _start(self, model: Path, log: Path) -> None:
        """Start a new worker at the same address."""
        port, broker = self.worker.port, named(self.kafka)
        options = (*OPTIONS, *SLOW, "--http-port", str(port))
        self.worker = WorkerProcess(broker, TOPICS, model, log, *options)
        self.worker.port = port
        self.worker.wait_ready()

    def discovery_fails(self) -> None:
        with self.fault("discovery finds no worker", "StreamlabelMissing"):
            self.prometheus.discover(found=False)
        self.prometheus.discover(found=True)
        self.cured("StreamlabelMissing")


def panels(prometheus: Prometheus) -> Iterator[tuple[str, str, bool]]:
    """Yield each panel, the numbers it draws, and whether that is as expected."""
    counts: dict[str, list[int]] = {}
    for panel, query in Project(ROOT).queries():
        series = prometheus.drawn(query.replace("[1m]", f"[{RATE}]"), 20)
        numbers = [len(values) for _, values in series]
        counts.setdefault(panel, []).append(sum(numbers))
    for panel, numbers in counts.items():
        drawn = ", ".join(map(str, numbers))
        empty = EMPTY | dict.fromkeys(AT_TIMES, "nothing to draw at times")
        if panel in empty:
            yield panel, f"{drawn}: {empty[panel]}", True
        else:
            yield panel, drawn, all(numbers)


def main() -> int:
    """Print both tables; return 1 for a panel or an alert that failed."""
    home = read_environment("KAFKA_HOME")
    if not home or not PROMETHEUS:
        print("needs Apache Kafka at KAFKA_HOME, and prometheus on PATH", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, ApacheKafka(Path(home)) as kafka:
        broker: Broker = named(kafka)
        settings = Path(folder) / "streamlabel.toml"
        settings.write_text(ROUTES)
        options = (*SLOW, "--config", str(settings))
        with admin_of(kafka, TOPICS), watched(broker, TOPICS, Path(folder), *options) as scene:
            return _report(kafka, Path(folder), *scene)


def _report(
    kafka: ApacheKafka,
    home: Path,
    worker: WorkerProcess,
    prometheus: Prometheus,
    feed: SteadyFeed,
    posts: PostMaker,
) -> int:
    feed.rate = 100
    clock.sleep(20)
    drawn = list(panels(prometheus))
    print("| Panel | Numbers in 20 s, by query |\n| --- | --- |")
    for panel, numbers, good in drawn:
        print(f"| {panel} | {numbers if good else 'NOTHING'} |", flush=True)
    alarms = Alarms(kafka, worker, prometheus, feed, posts)
    steps: list[Callable[[], None]] = [
        alarms.posts_change,
        alarms.all_spam,
        alarms.copies_refused,
        lambda: alarms.settings_break(home / "streamlabel.toml"),
        alarms.overload,
        alarms.open_transaction,
        alarms.a_member_dies,
        alarms.broker_freezes,
        alarms.broker_stops,
        alarms.discovery_fails,
        lambda: alarms.worker_dies(home / "model", home),
    ]
    try:
        for step in steps:
            step()
    finally:
        alarms.worker.kill()
        print("\n| Alert | Fault | Fires after | Clears after |\n| --- | --- | --- | --- |")
        print("\n".join(alarms.rows), flush=True)
    tried = {rule["alert"] for rule in Project(ROOT).alerts if rule["alert"] in str(alarms.rows)}
    complete = len(tried) == len(Project(ROOT).alerts)
    return 0 if complete and all(good for *_, good in drawn) and "NO" not in str(alarms.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
