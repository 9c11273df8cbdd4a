"""Finds the topics that match a pattern: at start, and those that are created later.

Owns: the topics of the consumer's subscription, and their ids.
Thread: poll; the client's IO thread updates the metadata.
Must not import: inference, runtime.

The client can subscribe to a pattern too. But it then waits for new metadata in each poll that
joins the group, and gives up when the poll ends: with many topics, or while the polls are short,
it never joins. And it subscribes before the outputs of a new topic exist.

Three things can happen to an input topic:

* *It is new.* Its outputs are prepared, then it is subscribed to. The group rebalances. If they
  can't be prepared now, that is tried again with the next metadata; topics that are subscribed to
  don't wait.
* *It is gone.* What is in flight is fenced, because a commit of its offsets would skip records of a
  later topic of that name, and would fail until then. It leaves the subscription.
* *Another topic has its name*, or it is back before the group has taken its partitions away (a
  broker that had just started didn't know it). Its partitions are read from a new position.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from kafka import TopicPartition

from worker.errors import BrokerAway, RegistryAway, RegistryDenied
from worker.kafka_io.internals import change_topics, consumer_metadata, refreshed_at
from worker.kafka_io.listener import Listener
from worker.kafka_io.positions import Positions
from worker.kafka_io.topic_notes import differ
from worker.logs import get_logger
from worker.settings import WorkerTopics

log = get_logger(__name__)

PrepareOutputs = Callable[[Collection[str]], None]


class TopicFinder:
    """Keeps a consumer's subscription up to date.

    Args:
        consumer: subscribed with `internals.subscribe_to_found`.
        topics: have the pattern.
        listener: drops the partitions of a topic that is gone.
        positions: finds new positions for the partitions of a topic that is back.
        prepare: gets the names of the inputs whenever they change, before they are subscribed to;
            raises if the worker can't read one of them.
    """

    def __init__(
        self,
        consumer: Any,
        topics: WorkerTopics,
        listener: Listener,
        positions: Positions,
        prepare: PrepareOutputs,
    ) -> None:
        self._consumer, self._metadata = consumer, consumer_metadata(consumer)
        self._topics = topics
        self._listener, self._positions = listener, positions
        self._prepare = prepare
        # By name; an old broker has no ids, which is None.
        self._ids: dict[str, Any] = {}
        self._gone: dict[str, Any] = {}  # deleted, and their partitions are still assigned
        self._read: dict[str, Any] = {}  # both, as of the last change; replaced whole
        self._looked_at = -1.0

    @property
    def names(self) -> tuple[str, ...]:
        """The topics that match and exist."""
        return tuple(self._ids)

    def topic_id(self, name: str) -> Any:
        """Any thread: return the id of a topic that is read, or was, or None."""
        return self._read.get(name)

    def missing(self) -> bool:
        """Return False: nothing waits for a topic that is gone."""
        return False

    def check(self) -> None:
        """Look for changes if the metadata are newer than at the last call; sends no request.

        Raises:
            Fatal: a new topic can't be read; it is not subscribed to.
            KafkaError: a broker did not answer; call again.
        """
        refreshed = refreshed_at(self._metadata)
        if refreshed == self._looked_at:
            return
        matching = sorted(filter(self._topics.matches, self._metadata.topics()))
        ids = {name: self._metadata.topic_id(name) for name in matching}
        for name, known in list(self._ids.items()):
            if name not in ids or differ(ids[name], known):
                self._drop(name)
        subscribed = self._subscribe(matching)
        for name in self._gone.keys() & set(subscribed):
            self._restart(name, recreated=differ(ids[name], self._gone[name]))
        self._ids = {name: ids[name] for name in subscribed}
        self._gone = {name: at for name, at in self._gone.items() if self._assigned(name)}
        self._read = self._gone | self._ids
        self._looked_at = refreshed

    def _drop(self, name: str) -> None:
        log.info("an input topic was deleted", topic=name)
        self._gone[name] = self._ids.pop(name)
        self._listener.drop_topic(name)

    def _restart(self, name: str, *, recreated: bool) -> None:
        if assigned := self._assigned(name):
            log.info("an input topic is back", topic=name, recreated=recreated)
            self._positions.restart(assigned, recreated=recreated)
        self._gone.pop(name, None)

    def _subscribe(self, matching: list[str]) -> list[str]:
        """Subscribe to these topics; return those whose outputs are ready."""
        before = self._consumer.subscription()
        if set(matching) == before:
            return matching
        new = [name for name in matching if name not in before]
        try:
            self._prepare(matching)
        except (BrokerAway, RegistryAway, RegistryDenied) as error:
            log.warning("new topics can't be read yet, retrying", topics=new, reason=str(error))
            matching = [name for name in matching if name in before]
        else:
            if new:
                log.info("input topics were found", pattern=self._topics.pattern, topics=new)
        if set(matching) != before:
            change_topics(self._consumer, matching)
        return matching

    def _assigned(self, name: str) -> list[TopicPartition]:
        return sorted(tp for tp in self._consumer.assignment() if tp.topic == name)
