"""Every alert, made to fire by its own fault and to clear by the fault's end: `make alarms`.

A worker on an Apache Kafka of its own (KAFKA_HOME) and a real Prometheus; a few minutes. Prints two
tables: what each panel of the board has to draw, and how long each alert took, from the fault or from
the alert above that it shares the fault with, and from the cure. Exits 1 where a panel that should
draw does not, or an alert did not come or go.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from tests.conftest import Broker, Topics
from tests.deploy.project import ROOT, Project
from tests.deploy.test_prometheus import ALERTS, EMPTY
from tests.deploy.watched import OPTIONS, PROMETHEUS, RATE, Feed, Prometheus, RecentPosts, watched
from tests.support.apache import ApacheKafka
from tests.support.own_kafka import admin_of, named
from tests.support.workers import WorkerProcess, clock
from worker.settings import read_environment

TOPICS = Topics("in", "out", "dead", "group", 3)
# Slow enough to be overloaded, and quick to lose patience.
SLOW = (
    *("--batch-forward-tokens", "64", "--batch-max-records", "8", "--max-inflight-records", "64"),
    *("--cache-max-bytes", "0", "--stall-timeout", "3", "--kafka-session-timeout", "6"),
)


class Alarms:
    """The scene, and what was seen of each alert."""

    def __init__(
        self,
        kafka: ApacheKafka,
        worker: WorkerProcess,
        prometheus: Prometheus,
        feed: Feed,
        posts: RecentPosts,
    ) -> None:
        self.kafka, self.worker, self.prometheus = kafka, worker, prometheus
        self.feed, self.posts = feed, posts
        self.rows: list[str] = []

    @contextlib.contextmanager
    def fault(self, words: str, *alerts: str) -> Iterator[None]:
        """Make the fault in the `with`; its alerts must fire before it ends. Then `cured`."""
        print(f"{words} ...", file=sys.stderr, flush=True)
        try:
            yield
            for alert in alerts:
                took = self.prometheus.wait_for(alert, timeout=120)
                self.rows.append(f"| {alert} | {words} | {took:.1f} s |")
        except AssertionError as error:
            firing = ", ".join(sorted(self.prometheus.firing()))
            self.rows.append(f"| {', '.join(alerts)} | {words} | NO: {error}; firing: {firing} |")

    def cured(self, *alerts: str) -> None:
        """The fault is over: its alerts must clear."""
        for alert in alerts:
            try:
                told = f"{self.prometheus.wait_for_silence(alert, timeout=180):.1f} s"
            except AssertionError as error:
                told = f"NO: {error}"
            row = next(
                n for n, one in enumerate(self.rows) if one.startswith("| ") and alert in one
            )
            self.rows[row] += f" {told} |"

    # -- faults --------------------------------------------------------------------------------

    def posts_turn(self) -> None:
        alerts = ("StreamlabelDeadLetters", "StreamlabelLabelDrift", "StreamlabelConfidenceDrift")
        with self.fault("one post in five can't be read, the others are all of one kind", *alerts):
            self.feed.kind = self.posts.broken
        self.feed.kind = self.posts.mixed
        self.cured(*alerts)

    def too_much(self) -> None:
        late, gone = ("StreamlabelLagGrowing", "StreamlabelSlow"), "StreamlabelRecordsSkipped"
        rate = self.feed.rate
        with self.fault("more comes in than can be done", *late):
            self.feed.rate = 3000
        self.feed.rate = rate
        with self.fault("retention takes what was not read yet", gone):
            self._delete_all()
        self.cured(*late, gone)

    def _delete_all(self) -> None:
        servers = self.kafka.bootstrap_servers
        partitions = [TopicPartition(TOPICS.input, n) for n in range(TOPICS.partitions)]
        with contextlib.closing(KafkaConsumer(bootstrap_servers=servers)) as consumer:
            ends = consumer.end_offsets(partitions)
        with contextlib.closing(KafkaAdminClient(bootstrap_servers=servers)) as admin:
            admin.delete_records(ends)

    def others_hold_up(self) -> None:
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
        ) as heir:
            heir.init_transactions()  # which ends it
        self.cured(alert)

    def a_member_dies(self) -> None:
        dead, late = self._member(), self._member()
        while not dead.assignment():
            dead.poll(timeout_ms=200)
        dead._coordinator._disable_heartbeat()
        with self.fault("the group waits for a member that died", "StreamlabelJoining"):
            late.poll(timeout_ms=200)
        for one in (late, dead):
            one.close(autocommit=False, timeout_ms=1000)
        self.cured("StreamlabelJoining")

    def _member(self) -> KafkaConsumer:
        """Of the worker's group, with a session that outlasts the rule."""
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
        with self.fault("the broker is frozen: connections stand, nothing is answered", "StreamlabelStalled"):  # fmt: skip
            self.kafka.nodes[0].freeze()
        self.kafka.nodes[0].thaw()
        self.cured("StreamlabelStalled")

    def broker_goes(self) -> None:
        with self.fault("the broker is stopped", "StreamlabelNotReady"):
            self.kafka.go_down()
        self.kafka.go_up()
        self.cured("StreamlabelNotReady")

    def worker_dies(self, model: Path, home: Path) -> None:
        with self.fault("the worker is killed", "StreamlabelDown"):
            self.worker.kill()
        self._start(model, home / "second.log")
        self.cured("StreamlabelDown")
        with self.fault("and killed again, and started again", "StreamlabelRestarting"):
            self.worker.kill()
            self._start(model, home / "third.log")
        self.cured("StreamlabelRestarting")

    def _start(self, model: Path, log: Path) -> None:
        """A successor at the same address."""
        port, broker = self.worker.port, named(self.kafka)
        given = (*OPTIONS, *SLOW, "--http-port", str(port))
        self.worker = WorkerProcess(broker, TOPICS, model, log, *given)
        self.worker.port = port
        self.worker.wait_ready()

    def discovery_fails(self) -> None:
        with self.fault("discovery finds no worker", "StreamlabelMissing"):
            self.prometheus.discover(found=False)
        self.prometheus.discover(found=True)
        self.cured("StreamlabelMissing")


def panels(prometheus: Prometheus) -> Iterator[tuple[str, str, bool]]:
    """Each panel, what it draws, and whether that is as it should be."""
    found: dict[str, list[int]] = {}
    for where, query in Project(ROOT).queries():
        series = prometheus.drawn(query.replace("[1m]", f"[{RATE}]"), 20)
        numbers = [len(values) for _, values in series]
        found.setdefault(where, []).append(sum(numbers))
    for where, numbers in found.items():
        told = ", ".join(map(str, numbers))
        empty = EMPTY | {ALERTS: "none need fire"}
        if where in empty:
            yield where, f"{told}: {empty[where]}", True
        else:
            yield where, told, all(numbers)


def main() -> int:
    """Print both tables; 1 where something is not as it should be."""
    home = read_environment("KAFKA_HOME")
    if not home or not PROMETHEUS:
        print("needs an Apache Kafka at KAFKA_HOME, and prometheus on PATH", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder, ApacheKafka(Path(home)) as kafka:
        broker: Broker = named(kafka)
        with admin_of(kafka, TOPICS), watched(broker, TOPICS, Path(folder), *SLOW) as scene:
            return _tell(kafka, Path(folder), *scene)


def _tell(
    kafka: ApacheKafka,
    home: Path,
    worker: WorkerProcess,
    prometheus: Prometheus,
    feed: Feed,
    posts: RecentPosts,
) -> int:
    feed.rate = 100
    clock.sleep(20)
    drawn = list(panels(prometheus))
    print("| Panel | Numbers in 20 s, by query |\n| --- | --- |")
    for where, told, good in drawn:
        print(f"| {where} | {told if good else 'NOTHING'} |", flush=True)
    alarms = Alarms(kafka, worker, prometheus, feed, posts)
    steps: list[Callable[[], None]] = [
        alarms.posts_turn,
        alarms.too_much,
        alarms.others_hold_up,
        alarms.a_member_dies,
        alarms.broker_freezes,
        alarms.broker_goes,
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
    whole = len(tried) == len(Project(ROOT).alerts)
    return 0 if whole and all(good for *_, good in drawn) and "NO" not in str(alarms.rows) else 1


if __name__ == "__main__":
    sys.exit(main())
