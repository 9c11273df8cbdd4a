"""The environment of a run: topics of its own, producer and observer.

The harness's thread owns an `Arena`; producer and observer have a thread each.
"""

from __future__ import annotations

import contextlib
import json
import math
import random
import threading
from collections.abc import Callable
from itertools import chain
from typing import Self

from kafka import KafkaAdminClient, KafkaProducer
from kafka.admin import MemberToRemove
from kafka.errors import KafkaError

from tests.chaos.cluster import Cluster
from tests.chaos.decisions import KindsOfValues, Routed, kind_of
from tests.chaos.names import RunNames
from tests.chaos.plan import RecordFormat
from tests.chaos.sent import Fate, Sent, SentRecord, numbered
from tests.chaos.values import AvroValues, JsonValues, Values
from tests.chaos.worker import POISON
from worker.clock import SystemClock
from worker.core.coordinates import SOURCE_HEADER, parse_source
from worker.errors import StreamlabelError
from worker.kafka_io.admin import Admin
from worker.kafka_io.reader import TopicReader
from worker.kafka_io.topic_notes import read_topic
from worker.settings import KafkaSettings

_OBSERVE_INTERVAL = 0.25  # seconds
_FOR_EVER_MS = 2**31 - 1
_METADATA_MS = 2_000


def _words(number: int) -> str:
    words = " ".join(f"word{(number * 7 + n) % 97}" for n in range(1 + number % 12))
    return f"post {number} {words}"


def _key(number: int) -> bytes:
    """Return a record's key: one in three has its own, which compaction keeps."""
    return f"author-{number % 7 if number % 3 else number}".encode()


class Arena:
    """The topics of one run, with a producer that retries everything, and an observer.

    Args:
        rate: input records a second.
        limit: total of input records.
        format_: of input records and results. `avro` needs the cluster's registry.
        names: of topics and group; by default new ones.
        text: returns the text of a record, by its number.
        unreadable: share of the records that have no text.
        seed: draws them.
        routed: the topics of the routes, in a run that has some; each is created.

    Attributes:
        sent: input records that are acknowledged, by what must become of them.
        models: those that results name, once they were read.
        next_number: of the next input record, while the producer is held.
        topic_id: of the input, once it was created again.
        longest_stall: most seconds in which records waited and no outcome appeared.
    """

    def __init__(
        self,
        cluster: Cluster,
        partitions: int,
        rate: float,
        limit: float = math.inf,
        format_: RecordFormat = "json",
        *,
        names: RunNames | None = None,
        text: Callable[[int], str] = _words,
        unreadable: float = 0.0,
        seed: int = 0,
        routed: Routed | None = None,
    ) -> None:
        self._text, self._unreadable = text, unreadable
        self._chance = random.Random(seed)
        self._cluster, self._partitions = cluster, partitions
        self._rate, self._limit = rate, limit
        self._clock = SystemClock()
        self._kafka = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        self._stop_producing, self._stop_observing = threading.Event(), threading.Event()
        self._held, self._resting = threading.Event(), threading.Event()
        self._extra: list[bytes | None] = []
        self.sent = Sent()
        self.models: set[str] = set()
        self.topic_id: str | None = None
        self.names = names or RunNames()
        self._values = KindsOfValues() if routed else _values(cluster, self.names, format_)
        self._routed = routed
        main = (self.names.output, self.names.dead)
        self._outcomes = (*main, *(routed.outcomes if routed else ()))
        self._topics = [self.names.input, *main, *(routed.topics if routed else ())]
        self.outcomes = self.next_number = 0
        self.longest_stall = 0.0
        self.producing = threading.Thread(target=self._produce, name="producer", daemon=True)
        self._observing = threading.Thread(target=self._observe, name="observer", daemon=True)

    def __enter__(self) -> Self:
        with Admin(self._kafka) as admin:
            for name in self._topics:
                admin.create(name, self._partitions)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_producing.set()
        self._stop_observing.set()
        for thread in (self.producing, self._observing):
            if thread.ident:
                thread.join(30)
        with contextlib.suppress(Exception), contextlib.closing(self._client()) as client:
            client.delete_topics(self._topics)

    def start(self) -> None:
        """Start producer and observer."""
        self.producing.start()
        self._observing.start()

    def committed(self, admin: Admin) -> dict[int, int]:
        """Return the group's offsets of the input, without those of a deleted topic of its name."""
        offsets = admin.group_offsets(self.names.group)
        return {
            partition.partition: at.offset
            for partition, at in offsets.items()
            if partition.topic == self.names.input
            if self.topic_id is None or read_topic(at.note) in (None, self.topic_id)
        }

    @property
    def outcome_topics(self) -> tuple[str, ...]:
        """The topics that workers write, copies included."""
        return tuple(self._topics[1:])

    @property
    def produced(self) -> int:
        """Number of input records that are acknowledged."""
        return self.sent.total

    @property
    def bad(self) -> int:
        """Number of input records that must become dead letters."""
        return self.sent.count("bad")

    def left(self, fate: Fate) -> int:
        """Return how many records with this fate the input still has."""
        with Admin(self._kafka) as admin:
            return self.sent.count(fate, admin.start_offsets(self.names.input))

    @property
    def complete(self) -> bool:
        """True once all records up to the limit are acknowledged."""
        return self.produced >= self._limit

    def inject(self, kind: str, number: int) -> None:
        """Let the producer send records that can't be labelled."""
        for n in range(number):
            if kind == "tombstone":
                self._extra.append(None)
            elif kind == "poison":
                self._extra.append(self._values.text(n, f"a {POISON} {n}"))
            else:
                self._extra.append(self._values.unreadable(n))

    def hold(self, patience: float) -> bool:
        """Let the producer wait until `go_on`; return whether all it has sent is acknowledged."""
        self._held.set()
        return self._resting.wait(patience)

    def go_on(self) -> None:
        """Let the producer go on, as another producer."""
        self._held.clear()

    def drain(self, between: Callable[[], None], patience: float) -> bool:
        """Stop producing and wait until the group has committed everything.

        Returns:
            False if no offset was committed for `patience` seconds while records waited.
        """
        self._stop_producing.set()
        left, moved_at = -1, self._clock.monotonic()
        while self._clock.monotonic() - moved_at < patience:
            between()
            ended = not self.producing.is_alive()  # before the ends of the log are read
            lag = self._lag()
            if ended and lag == 0:
                return True
            if lag not in (left, -1):
                left, moved_at = lag, self._clock.monotonic()
            self._clock.sleep(_OBSERVE_INTERVAL)
        return False

    def misread(self) -> int:
        """Count results that can't be read, or that name another record than their header."""
        wrong = 0
        self.models.clear()
        routed = (self._routed.news, self._routed.copies) if self._routed else ()
        with Admin(self._kafka) as admin, TopicReader(self._kafka) as reader:
            for topic in (self.names.output, *routed):
                ends = admin.end_offsets(topic, "read_committed")
                for record in reader.read(topic, ends):
                    source = parse_source(dict(record.headers)[SOURCE_HEADER] or b"")
                    wrong += source is None or not self._names_source(record.value, source)
        return wrong

    def _names_source(self, value: bytes, source: tuple[str, int, int]) -> bool:
        try:
            result = self._values.result(value)
            named = result["source"]
            self.models.add(json.dumps(result.get("model"), default=str))
        except Exception:  # noqa: BLE001 - whatever is wrong with it
            return False
        return (named["topic"], named["partition"], named["offset"]) == source

    def forget_killed(self) -> None:
        """Remove members and transactions of a killed worker from the embedded broker.

        Neither expires there, and an open transaction would hide all later records from readers.
        """
        with Admin(self._kafka) as admin, contextlib.closing(self._client()) as client:
            dead = [MemberToRemove(member_id=m.member_id) for m in admin.members(self.names.group)]
            if dead:
                client.remove_group_members(self.names.group, dead)
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
                done = self.committed(admin)
                starts = admin.start_offsets(self.names.input)
        except StreamlabelError:
            return -1
        return sum(max(0, end - max(done.get(p, 0), starts[p])) for p, end in ends.items())

    # -- the producer's thread -----------------------------------------------------------------

    def _producer(self) -> KafkaProducer:
        return KafkaProducer(
            bootstrap_servers=self._cluster.bootstrap_servers.split(","),
            delivery_timeout_ms=_FOR_EVER_MS,
            max_block_ms=60_000,
            metadata_max_age_ms=_METADATA_MS,  # the number of partitions may grow
        )

    def _rest(self, producer: KafkaProducer) -> KafkaProducer:
        """Wait for `go_on`; return a producer that knows nothing of the log before."""
        while self._held.is_set() and not self._resting.is_set():
            with contextlib.suppress(KafkaError):
                producer.flush(1)
                self._resting.set()
        while self._held.is_set():
            self._clock.sleep(0.02)
        self._resting.clear()
        producer.close(10)
        return self._producer()

    def _produce(self) -> None:
        producer = self._producer()
        number, started = 0, self._clock.monotonic()
        while not self._stop_producing.is_set():
            if self._held.is_set():
                producer = self._rest(producer)
            while number < min(self._limit, (self._clock.monotonic() - started) * self._rate):
                self._send(producer, number, *self._next(number))
                number += 1
                self.next_number = number
            self._clock.sleep(0.02)
        while self._extra:
            self._send(producer, number, *self._next(number))
            number += 1
        with contextlib.suppress(KafkaError):  # the audit reports a broken cluster
            producer.flush(120)
            producer.close(10)

    def _next(self, number: int) -> tuple[Fate, bytes | None]:
        if self._extra:
            return "bad", self._extra.pop()
        if self._chance.random() < self._unreadable:
            return "bad", self._values.unreadable(number)
        return kind_of(number), self._values.text(number, self._text(number))

    def _send(self, producer: KafkaProducer, number: int, fate: Fate, value: bytes | None) -> None:
        self.sent.sending(number, fate)
        while True:
            with contextlib.suppress(Exception):  # metadata timed out: retry
                sent = producer.send(
                    self.names.input,
                    value=value,
                    key=_key(number),
                    partition=number % len(producer.partitions_for(self.names.input)),
                    headers=numbered(number),
                )
                sent.add_callback(
                    lambda at: self.sent.note(
                        number, SentRecord(fate, at.partition, at.offset, at.timestamp)
                    )
                )
                return

    # -- the observer's thread -----------------------------------------------------------------

    def _observe(self) -> None:
        moved_at, admin = self._clock.monotonic(), None
        while not self._stop_observing.is_set():
            self._clock.sleep(_OBSERVE_INTERVAL)
            try:
                admin = admin or Admin(self._kafka)
                outcomes = sum(
                    sum(admin.end_offsets(name, "read_committed").values())
                    for name in self._outcomes
                )
            except StreamlabelError:
                continue
            now = self._clock.monotonic()
            if outcomes > self.outcomes or self.produced <= outcomes:
                self.outcomes, moved_at = max(outcomes, self.outcomes), now
            self.longest_stall = max(self.longest_stall, now - moved_at)
        if admin:
            admin.close()


def _values(cluster: Cluster, names: RunNames, format_: RecordFormat) -> Values:
    if format_ == "json" or cluster.registry is None:
        return JsonValues()
    return AvroValues(cluster.registry.server, names.input)
