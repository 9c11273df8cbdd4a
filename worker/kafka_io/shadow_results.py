"""Compares two models by their results in topics: those of the worker, and those of its shadow.

Owns: an admin client and a reader; the shadow's results, until the worker's are read.
Thread: main, of `streamlabel shadow report --topics`.
Must not import: inference, runtime.

Coordinates join the two results of a record, in any partition. Repeats of a result count once.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from worker.core.coordinates import SOURCE_HEADER, parse_source
from worker.core.records import Headers
from worker.core.shadow import Comparison, LabelPairing
from worker.errors import Fatal, TopicMissing
from worker.kafka_io.admin import Admin
from worker.kafka_io.reader import AuditRecord, TopicReader
from worker.settings import Settings

Source = tuple[str, int, int]  # topic, partition, offset
Models = tuple[str, str]  # hashes of the weights: of the worker's model, and of the shadow's
# (topic, number of records read, number of offsets)
ReadProgress = Callable[[str, int, int], None]

_PROGRESS_EVERY: Final = 20_000  # records
_SUM_MARGIN: Final = 0.001  # float32 rounds the probabilities of 1,000 labels to about 1e-4


class _Result(NamedTuple):
    model: str
    weights: str
    labels: tuple[str, ...]
    scores: tuple[float, ...]

    @property
    def exclusive(self) -> bool:
        return abs(sum(self.scores) - 1) <= _SUM_MARGIN


@dataclass(frozen=True)
class TopicsComparison:
    """The comparison of two models by their topics.

    Attributes:
        models: names of the worker's model and of the shadow's.
        comparison: of the records that both labelled.
        unmatched: results of the shadow without a result of the worker.
        others: texts of earlier pairs of models, which are not in `comparison`.
    """

    models: tuple[str, str]
    comparison: Comparison
    unmatched: int
    others: int


def compare_topics(
    settings: Settings, bounds: Sequence[float], progress: ReadProgress
) -> TopicsComparison:
    """Read the results of both models and compare them, by the pair of models that is newest.

    Args:
        settings: cluster and topics.
        bounds: of the divergences that are counted together, bits.
        progress: called from time to time.

    Raises:
        TopicMissing: a topic does not exist.
        Fatal: no record has a result of both models.
        BrokerAway: the broker stopped answering.
    """
    topic = settings.shadow.topic or ""
    with Admin(settings.kafka) as admin, TopicReader(settings.kafka) as reader:
        outputs = admin.resolve(settings.topics).all_results
        infos = admin.topics([*outputs, topic])
        if missing := ", ".join(name for name, info in infos.items() if info is None):
            raise TopicMissing(f"nothing to compare: missing: {missing}")
        # The shadow's results come later than the worker's, so their end is asked for first.
        ends = {name: admin.end_offsets(name) for name in (topic, *outputs)}
        read = _Reading(reader, ends, progress)
        theirs = dict(read.results(topic))
        pairs = _Pairs({**settings.decision.labels, **settings.shadow.labels}, bounds)
        for output in outputs:
            for source, result in read.results(output, theirs):
                pairs.note(result, theirs.pop(source))
    return pairs.newest(unmatched=len(theirs))


class _Reading:
    def __init__(
        self,
        reader: TopicReader,
        ends: Mapping[str, Mapping[int, int]],
        progress: ReadProgress,
    ) -> None:
        self._reader, self._ends, self._progress = reader, ends, progress

    def results(
        self, topic: str, wanted: Mapping[Source, Any] | None = None
    ) -> Iterator[tuple[Source, _Result]]:
        """Yield the results in a topic, or only those of some records while they are wanted."""
        ends = self._ends[topic]
        total = sum(ends.values())
        for number, record in enumerate(self._reader.read(topic, ends)):
            if number % _PROGRESS_EVERY == 0:
                self._progress(topic, number, total)
            source = _source(record.headers)
            if source is None or (wanted is not None and source not in wanted):
                continue
            if result := _result(record):
                yield source, result


class _Pairs:
    """The comparisons of each pair of models, in the order in which they appear."""

    def __init__(self, names: Mapping[str, str], bounds: Sequence[float]) -> None:
        self._names, self._bounds = names, bounds
        self._pairs: dict[Models, _Pair] = {}
        self._last: Models | None = None
        self._texts: Counter[Models] = Counter()

    def note(self, ours: _Result, theirs: _Result) -> None:
        models = self._last = (ours.weights, theirs.weights)
        if models not in self._pairs:
            self._pairs[models] = _Pair(ours, theirs, self._names, self._bounds)
        self._pairs[models].note(ours, theirs)
        self._texts[models] += 1

    def newest(self, unmatched: int) -> TopicsComparison:
        if self._last is None:
            raise Fatal(
                "no record has a result of both models: is shadow.topic the topic of the running "
                "worker, and output.topic its output?"
            )
        pair = self._pairs[self._last]
        others = self._texts.total() - self._texts[self._last]
        return TopicsComparison(pair.models, pair.comparison, unmatched, others)


class _Pair:
    """Two models; results don't say whether their labels are exclusive, but their sums do."""

    def __init__(
        self,
        ours: _Result,
        theirs: _Result,
        names: Mapping[str, str],
        bounds: Sequence[float],
    ) -> None:
        self.models = (ours.model, theirs.model)
        self._sums_are_one = True
        self._ways = {
            exclusive: (
                LabelPairing(ours.labels, theirs.labels, names, exclusive=exclusive),
                Comparison(bounds),
            )
            for exclusive in (True, False)
        }

    def note(self, ours: _Result, theirs: _Result) -> None:
        self._sums_are_one &= ours.exclusive and theirs.exclusive
        for pairing, comparison in self._ways.values():
            comparison.note(pairing.compare(ours.scores, theirs.scores))

    @property
    def comparison(self) -> Comparison:
        return self._ways[self._sums_are_one][1]


def _source(headers: Headers) -> Source | None:
    value = next((value for name, value in reversed(headers) if name == SOURCE_HEADER), None)
    return parse_source(value) if value else None


def _result(record: AuditRecord) -> _Result | None:
    """Return the result in a record, or None if it is no result in JSON."""
    try:
        document = json.loads(record.value)
        document = document.get("classification", document)  # of an enriched object
        labels, model = document["labels"], document["model"]
        return _Result(
            model["name"],
            model["weights_sha256"],
            tuple(label["label"] for label in labels),
            tuple(float(label["score"]) for label in labels),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
