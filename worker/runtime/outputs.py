"""The output topics in use: their limits and their partitions.

Owns: both; they grow when a topic is found that matches `input.topic_pattern`.
Thread: the poll thread changes them, the publish thread reads them. Each step is one operation of a
    dict.
Must not import: kafka, inference, cli.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from worker.core.topic_limits import TopicLimits
from worker.core.topics import DEFAULT_MAX_MESSAGE_BYTES, TopicInfo
from worker.logs import get_logger
from worker.runtime.topics import require, suitability_warnings
from worker.settings import Settings

log = get_logger(__name__)


class TopicSizes(Protocol):
    """The topics that a producer writes to.

    Attributes:
        partitions: number of partitions by topic; it may grow.
        largest_batch: bytes of the largest batch that one of the topics accepts.
    """

    partitions: dict[str, int]
    largest_batch: int


class OutputTopics:
    """The topics that a worker writes to.

    Args:
        settings: of the worker.
        infos: describes its topics at start.
        add_output: registers the schema of results that go to a topic.

    Raises:
        RegistryAway: the schema registry does not answer; try again.
        SchemaRefused: it refuses the schema of results.

    Attributes:
        limits: limits by topic. A topic stays when its input is deleted: a record may be in flight.
        partitions: number of partitions by topic; without the outputs of deleted inputs.
        largest_batch: bytes of the largest batch that one of the topics accepts.
    """

    def __init__(
        self,
        settings: Settings,
        infos: Mapping[str, TopicInfo],
        add_output: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._settings, self._add_output = settings, add_output
        self._inputs = set(settings.topics.among(infos).inputs)
        self.limits: dict[str, TopicLimits] = {}
        self.partitions: dict[str, int] = {}
        self.largest_batch = 0
        self._add(infos)

    def prepare(self, inputs: Collection[str]) -> None:
        """Make the outputs of these inputs ready, and forget those of all others.

        Creates missing topics if `create_topics` is set.

        Raises:
            TopicMissing, Fatal, BrokerAway: as `require`.
            RegistryAway, SchemaRefused: as the constructor.
        """
        if new := set(inputs) - self._inputs:
            infos = require(self._settings, sorted(new))
            for text in suitability_warnings(self._settings, infos):
                log.warning(text)
            self._add(infos)
        self._inputs = set(inputs)
        wanted = self._settings.topics.among(inputs).outputs
        for name in self.partitions.keys() - wanted:
            del self.partitions[name]

    def use(self, settings: Settings) -> None:
        """Make the topics of these settings ready, as the labels of a changed model name others.

        Topics of before stay: a record may be in flight.

        Raises:
            TopicMissing, Fatal, BrokerAway: as `require`.
            RegistryAway, SchemaRefused: as the constructor.
        """
        if settings.topics == self._settings.topics:
            return
        infos = require(settings, sorted(self._inputs))
        for text in suitability_warnings(settings, infos):
            log.warning(text)
        self._settings = settings
        self._add(infos)

    def _add(self, infos: Mapping[str, TopicInfo]) -> None:
        topics, most = self._settings.topics.among(infos), self._settings.kafka.max_request_bytes
        for name in topics.all_results:
            if name not in self.partitions:
                self._add_output(name)
        for name in topics.outputs:
            info = infos[name]
            if name not in self.partitions:  # limits that refusals have corrected are kept
                self.limits[name] = TopicLimits.of(info, most)
            self.partitions[name] = info.partitions
            largest = info.max_message_bytes or DEFAULT_MAX_MESSAGE_BYTES
            self.largest_batch = max(self.largest_batch, min(largest, most or largest))
