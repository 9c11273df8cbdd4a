"""Notes where each partition's results begin to come from the model in use.

Owns: the first offset of each partition under each of the last models.
Thread: `note` runs on the publish thread, `show` on the poll thread; any thread may read `models`.
Must not import: kafka, inference, cli.

A record is noted once its result was handed to the producer, in the order of publishing. So each
result of the partition from that offset on comes from the model, and each one before it does not,
as long as this worker has the partition. A partition that comes back after a rebalance is noted
again, because another worker has labelled in between.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from worker.core.records import Encoded, ModelCard, Partition
from worker.logs import get_logger
from worker.metrics import Metrics

log = get_logger(__name__)

_KEPT: Final = 20  # models; an operator reads the last changes, and results have them all


@dataclass(slots=True)
class _Stretch:
    """The results of one model: for each partition its epoch, and the first offset in it."""

    card: ModelCard
    since_ms: int
    first: dict[Partition, tuple[int, int]] = field(default_factory=dict)


class FirstOffsets:
    """The first offset of each partition under the model in use, and under those before it.

    Args:
        metrics: show the first offsets under the model in use.
        wall_ms: reads the wall clock.
    """

    def __init__(self, metrics: Metrics, wall_ms: Callable[[], int]) -> None:
        self._metrics, self._wall_ms = metrics, wall_ms
        self._stretches: deque[_Stretch] = deque(maxlen=_KEPT)
        self._began = 0
        self._shown: set[tuple[str, ...]] = set()

    def note(self, outcomes: Sequence[Encoded]) -> None:
        """Note the results of a batch that was published. Publish thread only."""
        now = self._stretches[-1] if self._stretches else None
        for outcome in outcomes:
            card = outcome.model
            if card is None:
                continue
            if now is None or card is not now.card:
                now = self._begin(card)
            topic, partition, offset, epoch = outcome.ref
            known = now.first.get(Partition(topic, partition))
            if known is None or known[0] != epoch:
                now.first[Partition(topic, partition)] = (epoch, offset)
                if self._began > 1:  # the model of the start took over from none
                    _log_first(card, topic, partition, offset)

    def _begin(self, card: ModelCard) -> _Stretch:
        stretch = _Stretch(card, self._wall_ms())
        self._stretches.append(stretch)
        self._began += 1
        return stretch

    def show(self, partitions: Iterable[Partition]) -> None:
        """Set the gauge for the partitions that this worker has, and no others. Poll thread only.

        Args:
            partitions: those that are assigned.
        """
        wanted = dict[tuple[str, ...], int]()
        if self._stretches:
            now = self._stretches[-1]
            name, weights = now.card.name, now.card.weights_sha256
            for one in partitions:
                if found := now.first.get(one):
                    wanted[one.topic, str(one.partition), name, weights] = found[1]
        gauge = self._metrics.model_first_offset
        with self._metrics.lock:
            for gone in self._shown - wanted.keys():
                gauge.remove(*gone)
            for labels, offset in wanted.items():
                gauge.labels(*labels).set(offset)
        self._shown = set(wanted)

    def models(self) -> list[dict[str, Any]]:
        """Return the models that this process published results of, oldest first, at most 20."""
        return [
            {
                "name": stretch.card.name,
                "revision": stretch.card.revision,
                "weights_sha256": stretch.card.weights_sha256,
                "since": stretch.since_ms,
                "first_offsets": {
                    f"{topic}/{partition}": offset
                    for (topic, partition), (_, offset) in dict(stretch.first).items()
                },
            }
            for stretch in tuple(self._stretches)
        ]


def _log_first(card: ModelCard, topic: str, partition: int, offset: int) -> None:
    log.info(
        "model took over",
        model=card.name,
        revision=card.revision,
        weights_sha256=card.weights_sha256,
        topic=topic,
        partition=partition,
        offset=offset,
    )
