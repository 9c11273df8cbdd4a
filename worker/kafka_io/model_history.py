"""Reads the results for `streamlabel model history`.

Owns: an admin client and a reader.
Thread: main.
Must not import: inference, runtime, registry.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from worker.core.coordinates import SOURCE_HEADER, parse_source
from worker.core.dead_letters import last_header
from worker.core.formats.plain_json import ENRICHED_MEMBER
from worker.core.model_history import LabellingModel, ModelHistory
from worker.core.records import Headers, Partition
from worker.core.route_headers import COPY_HEADER, ROUTE_HEADER
from worker.core.when import Span, When
from worker.errors import RecordRejected, TopicMissing
from worker.kafka_io.admin import Admin
from worker.kafka_io.audit import Progress
from worker.kafka_io.audit_outlets import find_outlets
from worker.kafka_io.places import resolve
from worker.kafka_io.reader import AuditRecord, TopicReader
from worker.settings import Settings, WorkerTopics

# Returns the object in a value; raises RecordRejected if there is none.
Parse = Callable[[bytes, Headers, str], Any]

_PROGRESS_EVERY: Final = 5_000  # records
_BEGINNING: Final = When("earliest", "earliest")
_END: Final = When("latest", "latest")


@dataclass
class ReadHistory:
    """The history, and the records of the output topics that have no part in it.

    Attributes:
        topics: the output topics.
        inputs: those whose results count, as a person reads them.
        history: of the models.
        others: results of other inputs, by topic.
        foreign: records without the header of a result.
        unreadable: reason -> results that can't be read.
        notes: parts of a topic that could not be read.
    """

    topics: list[str]
    inputs: str
    history: ModelHistory = field(default_factory=ModelHistory)
    others: Counter[str] = field(default_factory=Counter)
    foreign: int = 0
    unreadable: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def read_history(
    settings: Settings, parse: Parse, progress: Progress, since_ms: int = 0
) -> ReadHistory:
    """Read the output topics.

    Args:
        settings: cluster and topics.
        parse: reads a value.
        progress: called from time to time.
        since_ms: the time to begin at, ms since 1970; 0 for all.

    Raises:
        TopicMissing: an output topic does not exist.
        BrokerAway: the broker stopped answering.
    """
    with Admin(settings.kafka) as admin, TopicReader(settings.kafka) as reader:
        chosen = admin.resolve(settings.topics)
        outlets = find_outlets(admin, settings, chosen)
        infos = admin.topics(dict.fromkeys((*chosen.results, *outlets.topics("result"))))
        topics = [name for name, info in infos.items() if info is not None]
        missing = ", ".join(name for name in chosen.results if infos[name] is None)
        if missing or not chosen.results:
            raise TopicMissing(
                f"no results to read: {missing or 'no output topic'} does not exist on "
                f"{settings.kafka.bootstrap_servers}: correct --output-topic, or the inputs that "
                "its name depends on"
            )
        read = ReadHistory(topics, chosen.pattern or ", ".join(chosen.inputs))
        since = When("time", "--since", since_ms) if since_ms else _BEGINNING
        for topic in topics:
            ends = admin.end_offsets(topic, "read_committed")
            starts = _starts(admin, topic, ends, Span(since, _END))
            total = sum(max(0, end - starts[p]) for p, end in ends.items())
            history, routed_only = ModelHistory(), topic in outlets.fitting
            for number, record in enumerate(reader.read(topic, ends, starts)):
                if _is_result(record, routed_only=routed_only):
                    _note(read, history, record, topic, parse, chosen)
                if number % _PROGRESS_EVERY == 0:
                    progress(topic, number, total)
            read.history.add(history)
            read.notes += [
                f"{topic} {partition}: not read from offset {position} on, where a transaction "
                "is still open"
                for partition, position in reader.unread.items()
            ]
    return read


def _starts(admin: Admin, topic: str, numbers: Iterable[int], span: Span) -> dict[int, int]:
    ranges = resolve(admin, [Partition(topic, number) for number in numbers], span)
    return {partition.partition: start for partition, (start, _) in ranges.items()}


def _is_result(record: AuditRecord, *, routed_only: bool) -> bool:
    """Return False for a copy of a result, and for what no route sent where that matters."""
    if last_header(record.headers, COPY_HEADER) is not None:
        return False
    return not routed_only or last_header(record.headers, ROUTE_HEADER) is not None


def _note(
    read: ReadHistory,
    history: ModelHistory,
    record: AuditRecord,
    topic: str,
    parse: Parse,
    chosen: WorkerTopics,
) -> None:
    source = parse_source(last_header(record.headers, SOURCE_HEADER) or b"")
    if source is None:
        read.foreign += 1
        return
    name, partition, offset = source
    if not chosen.matches(name):
        read.others[name] += 1
        return
    try:
        payload = parse(record.value, record.headers, topic)
        result = payload.get(ENRICHED_MEMBER) or payload
        for member, one in _members(result):
            origin = Partition(f"{name} {member}".rstrip(), partition)
            history.note(origin, offset, _model(one), result.get("processed_at"))
    except RecordRejected as error:
        read.unreadable[error.message] += 1
    except (LookupError, TypeError, ValueError, AttributeError):
        read.unreadable["it names no model"] += 1


def _members(result: Mapping[str, Any]) -> Iterable[tuple[str, Mapping[str, Any]]]:
    """Return the result of each of several models by its name, or the result itself without one.

    Each model changes on its own, so each has a history of its own.
    """
    several = result.get("classifications")
    if not isinstance(several, Mapping):
        return [("", result)]
    return [(name, one) for name, one in several.items() if one]


def _model(result: Mapping[str, Any]) -> LabellingModel:
    model = result["model"]
    return LabellingModel(*(str(model[name]) for name in LabellingModel._fields))
