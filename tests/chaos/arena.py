"""What a run takes place in: the brokers, the wires, the topics, the producer, the onlooker.

Owns everything outside of the workers. The harness's thread owns an `Arena`; producer and onlooker
have a thread each. A cluster is kept for several runs; each run has topics of its own.
"""

from __future__ import annotations

import contextlib
import json
import math
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Self

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import MemberToRemove
from kafka.errors import KafkaError

from tests.chaos.plan import SLOTS, BrokerKind
from tests.chaos.proxy import Wires
from tests.chaos.worker import POISON
from tests.support.apache import ApacheKafka
from worker.clock import SystemClock
from worker.demo.broker import EmbeddedBroker
from worker.errors import Fatal, StreamlabelError
from worker.kafka_io.admin import Admin
from worker.settings import KafkaSettings

BROKERS = 3
_UNREADABLE = (b"\xff\xfe", b"{", b"[]", b'{"text": 7}', b'{"text": " "}', b"{}")
_LOOK_EVERY = 0.25  # seconds
_FOR_EVER_MS = 2**31 - 1


@dataclass
class Cluster:
    """Brokers that run, and for each slot the address that its worker connects to."""

    kind: BrokerKind
    bootstrap_servers: str
    by_slot: list[str]
    kafka: ApacheKafka | None = None
    wires: Wires | None = None


@contextlib.contextmanager
def cluster(kind: BrokerKind, home: Path | None, brokers: int = BROKERS) -> Iterator[Cluster]:
    """Brokers of Apache Kafka with a wire for each slot, or the embedded one."""
    if kind == "embedded":
        with EmbeddedBroker() as broker:
            yield Cluster(kind, broker.bootstrap_servers, [broker.bootstrap_servers])
        return
    if home is None or not (home / "bin" / "kafka-server-start.sh").is_file():
        raise Fatal(
            "BROKER=apache needs an unpacked distribution of Apache Kafka: set KAFKA_HOME to its "
            "folder, or use BROKER=embedded"
        )
    with Wires(SLOTS[kind], brokers) as wires:
        doors = {f"SLOT{n}": wire.ports for n, wire in enumerate(wires.slots)}
        with ApacheKafka(home, brokers=brokers, doors=doors) as kafka:
            wires.connect([[node.listeners[door] for node in kafka.nodes] for door in doors])
            by_slot = [",".join(f"127.0.0.1:{port}" for port in wire.ports) for wire in wires.slots]
            yield Cluster(kind, kafka.bootstrap_servers, by_slot, kafka, wires)


@dataclass(frozen=True)
class Names:
    """A run's own topics and group."""

    group: str = field(default_factory=lambda: f"chaos-{uuid.uuid4().hex[:8]}")

    @property
    def input(self) -> str:
        return f"{self.group}.in"

    @property
    def output(self) -> str:
        return f"{self.group}.out"

    @property
    def dead(self) -> str:
        return f"{self.group}.dead"


class Arena:
    """One run's topics, with a producer that goes on whatever happens, and an onlooker.

    Args:
        rate: input records a second.
        limit: input records in all.

    Attributes:
        longest_stall: seconds in which work waited and no outcome appeared, at most.
    """

    def __init__(
        self, cluster: Cluster, partitions: int, rate: float, limit: float = math.inf
    ) -> None:
        self._cluster, self._partitions = cluster, partitions
        self._rate, self._limit = rate, limit
        self._clock = SystemClock()
        self._kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        self._stop_producing, self._stop_looking = threading.Event(), threading.Event()
        self._extra: list[bytes] = []
        self._produced = 0
        self.names = Names()
        self.outcomes = 0
        self.longest_stall = 0.0
        self.producing = threading.Thread(target=self._produce, name="producer", daemon=True)
        self._looking = threading.Thread(target=self._look, name="onlooker", daemon=True)

    def __enter__(self) -> Self:
        with Admin(self._kafka) as admin:
            for name in (self.names.input, self.names.output, self.names.dead):
                admin.create(name, self._partitions)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_producing.set()
        self._stop_looking.set()
        for thread in (self.producing, self._looking):
            if thread.ident:
                thread.join(30)
        names = [self.names.input, self.names.output, self.names.dead]
        with contextlib.suppress(Exception), contextlib.closing(self._client()) as client:
            client.delete_topics(names)

    def start(self) -> None:
        """Begin to produce and to look."""
        self.producing.start()
        self._looking.start()

    def inject(self, kind: str, number: int) -> None:
        """Have the producer send records that can't be labelled."""
        for n in range(number):
            text = json.dumps({"text": f"a {POISON} {n}"}).encode()
            self._extra.append(text if kind == "poison" else _UNREADABLE[n % len(_UNREADABLE)])

    def drain(self, between: Callable[[], None], patience: float) -> bool:
        """Stop producing and wait until the group has committed all.

        Returns:
            False where nothing was committed for `patience` seconds, with work waiting.
        """
        self._stop_producing.set()
        left, moved_at = -1, self._clock.monotonic()
        while self._clock.monotonic() - moved_at < patience:
            between()
            lag = self._lag()
            if not self.producing.is_alive() and lag == 0:
                return True
            if lag not in (left, -1):
                left, moved_at = lag, self._clock.monotonic()
            self._clock.sleep(_LOOK_EVERY)
        return False

    def forget_killed(self) -> None:
        """End what a kill left in the embedded broker, where nothing ends by itself.

        A member never expires there, and no transaction times out: it would hide from its readers
        whatever comes after it.
        """
        with Admin(self._kafka) as admin, contextlib.closing(self._client()) as client:
            gone = [MemberToRemove(member_id=m.member_id) for m in admin.members(self.names.group)]
            if gone:
                client.remove_group_members(self.names.group, gone)
            for transaction in chain(*client.list_transactions().values()):
                producer = KafkaProducer(
                    bootstrap_servers=self._cluster.bootstrap_servers.split(","),
                    transactional_id=transaction.transactional_id,
                )
                with contextlib.closing(producer):
                    producer.init_transactions()

    def _client(self) -> KafkaAdminClient:
        return KafkaAdminClient(bootstrap_servers=self._cluster.bootstrap_servers.split(","))

    def _lag(self) -> int:
        try:
            with Admin(self._kafka) as admin:
                ends = admin.end_offsets(self.names.input)
                done = admin.committed(self.names.group, self.names.input)
        except StreamlabelError:
            return -1
        return sum(end - done.get(partition, 0) for partition, end in ends.items())

    # -- the producer's thread -----------------------------------------------------------------

    def _produce(self) -> None:
        producer = KafkaProducer(
            bootstrap_servers=self._cluster.bootstrap_servers.split(","),
            delivery_timeout_ms=_FOR_EVER_MS,
            max_block_ms=60_000,
        )
        number, started = 0, self._clock.monotonic()
        while not self._stop_producing.is_set():
            while number < min(self._limit, (self._clock.monotonic() - started) * self._rate):
                self._send(producer, number, self._next_value(number))
                number += 1
            self._clock.sleep(0.02)
        while self._extra:
            self._send(producer, number, self._next_value(number))
            number += 1
        with contextlib.suppress(KafkaError):  # a cluster that is broken is told by the audit
            producer.flush(120)
            producer.close(10)

    def _next_value(self, number: int) -> bytes:
        if self._extra:
            return self._extra.pop()
        words = " ".join(f"word{(number * 7 + n) % 97}" for n in range(1 + number % 12))
        return json.dumps({"id": number, "text": f"post {number} {words}"}).encode()

    def _send(self, producer: KafkaProducer, number: int, value: bytes) -> None:
        def acknowledged(_: object) -> None:
            self._produced += 1

        while True:
            with contextlib.suppress(Exception):  # metadata that did not come in time: again
                sent = producer.send(
                    self.names.input,
                    value=value,
                    key=f"author-{number % 7}".encode(),
                    partition=number % self._partitions,
                )
                sent.add_callback(acknowledged)
                return

    # -- the onlooker's thread -----------------------------------------------------------------

    def _look(self) -> None:
        moved_at, admin = self._clock.monotonic(), None
        while not self._stop_looking.is_set():
            self._clock.sleep(_LOOK_EVERY)
            try:
                admin = admin or Admin(self._kafka)
                seen = sum(
                    sum(admin.end_offsets(name, "read_committed").values())
                    for name in (self.names.output, self.names.dead)
                )
            except StreamlabelError:
                continue
            now = self._clock.monotonic()
            if seen > self.outcomes or self._produced <= seen:
                self.outcomes, moved_at = max(seen, self.outcomes), now
            self.longest_stall = max(self.longest_stall, now - moved_at)
        if admin:
            admin.close()
