"""The facts of a topic, and warnings about topics that don't suit each other.

`kafka_io/admin` reads the facts; the log at start and `streamlabel check` show the warnings.

Owns: the rules that the topics are checked by.
Thread: main; pure.
Must not import: any other module of the worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588  # Kafka's own default of `max.message.bytes`
DEFAULT_AFTER_MS = 3_600_000  # Kafka's own default of `message.timestamp.after.max.ms`

_SMALLEST_DEAD_LETTER = 4_096  # bytes of a dead letter without the record's key, headers and value
_NO_BOUND_MS = 2**53  # Kafka's "no bound" is the largest 64-bit number
_FOR_EVER_MS = 2**63


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic; a configuration is None if the broker does not return it.

    Attributes:
        max_message_bytes: largest batch that it accepts.
        cleanup_policy: `delete`, `compact` or both.
        retention_ms: how long records are kept, -1 for ever.
        timestamp_type: `CreateTime` keeps a record's timestamp, `LogAppendTime` replaces it.
        timestamp_before_ms, timestamp_after_ms: how far a timestamp may be behind or ahead of the
            broker's clock.
        min_insync_replicas: replicas that must have a record before it is acknowledged.
    """

    partitions: int
    replication_factor: int
    max_message_bytes: int | None = None
    cleanup_policy: str | None = None
    retention_ms: int | None = None
    timestamp_type: str | None = None
    timestamp_before_ms: int | None = None
    timestamp_after_ms: int | None = None
    min_insync_replicas: int | None = None

    @property
    def is_described(self) -> bool:
        """True if the broker returned the topic's configuration."""
        return self.max_message_bytes is not None

    @property
    def compacted(self) -> bool:
        """True if records are removed from the middle of the topic."""
        return "compact" in (self.cleanup_policy or "")

    @property
    def keeps_timestamps(self) -> bool:
        """True if a record keeps the timestamp that it was sent with."""
        return self.timestamp_type != "LogAppendTime"

    @property
    def deletes_after_ms(self) -> int | None:
        """Age at which records are deleted; None: never, or unknown."""
        if self.retention_ms is None or self.retention_ms < 0:
            return None
        return self.retention_ms if "delete" in (self.cleanup_policy or "delete") else None


class Output(NamedTuple):
    """An output topic.

    Attributes:
        source: the input that it is fed from, several of them `combined`; None if there is none.
    """

    name: str
    info: TopicInfo
    source: TopicInfo | None = None


def combined(inputs: Iterable[TopicInfo]) -> TopicInfo | None:
    """Return what an output of several inputs must suit: most partitions, longest retention."""
    known = list(inputs)
    if not known:
        return None
    most = max(known, key=lambda info: info.partitions)
    longest = max(known, key=lambda info: info.deletes_after_ms or _FOR_EVER_MS)
    return replace(longest, partitions=most.partitions)


def topic_warnings(
    results: Iterable[Output],
    dead_letters: Output,
    notes: Iterable[Output] = (),
    *,
    keeps_event_time: bool,
) -> list[str]:
    """Return warnings about output topics that may refuse or lose outcomes.

    Args:
        results: the topics of results.
        dead_letters: the topic of dead letters.
        notes: the topic of notes of filtered records, if there is one.
        keeps_event_time: whether outcomes keep the timestamps of their records.
    """
    warnings: list[str] = []
    for output in results:
        warnings += _of_output(output, keeps_event_time=keeps_event_time)
        if output.info.compacted:
            warnings.append(
                f"topic {output.name!r} is compacted: a result without a key becomes a dead "
                "letter, and only the newest result of each key is kept (cleanup.policy)"
            )
    for output in notes:
        warnings += _of_output(output, keeps_event_time=keeps_event_time)
        if output.info.compacted:
            warnings.append(
                f"topic {output.name!r} is compacted: the note of a filtered record has no value, "
                "and compaction removes it; set cleanup.policy to delete"
            )
    warnings += _of_output(dead_letters, keeps_event_time=keeps_event_time)
    warnings += _of_dead_letters(dead_letters)
    return warnings


def _of_output(output: Output, *, keeps_event_time: bool) -> Iterator[str]:
    yield from _of_replicas(output)
    yield from _of_configuration(output)
    if output.source:
        yield from _of_partitions(output, output.source)
        yield from _of_timestamps(output, output.source) if keeps_event_time else ()


def _of_dead_letters(output: Output) -> Iterator[str]:
    if output.info.compacted:
        yield (
            f"topic {output.name!r} is compacted: a dead letter without a key stops the "
            "worker, and only the newest dead letter of each key is kept (cleanup.policy)"
        )
    most = output.info.max_message_bytes
    if most is not None and most < _SMALLEST_DEAD_LETTER:
        yield (
            f"topic {output.name!r} accepts records of {most} bytes, and a dead letter may "
            f"need more: set max.message.bytes to at least {_SMALLEST_DEAD_LETTER}"
        )


def size_warning(output: Output, least: int, usual: int, labels: int) -> str | None:
    """Return a warning if a result of the model may be too large for its topic.

    Args:
        output: the topic of results.
        least: bytes of a result without key, headers and id, with scores of one digit.
        usual: the same with scores of all digits.
        labels: number of the model's labels.
    """
    most = output.info.max_message_bytes
    if most is None or usual <= most:
        return None
    which = "never fits" if least > most else "may not fit"
    return (
        f"a result of this model has about {usual:,} bytes ({labels:,} labels) and {which}: topic "
        f"{output.name!r} accepts {most:,}; set max.message.bytes of the topic to {2 * usual:,}, or "
        "choose a model with fewer labels"
    )


def _of_replicas(output: Output) -> Iterator[str]:
    replicas, needed = output.info.replication_factor, output.info.min_insync_replicas or 0
    if needed > replicas:
        yield (
            f"topic {output.name!r} has replication factor {replicas} and min.insync.replicas = "
            f"{needed}: it refuses every write; set min.insync.replicas to {replicas} or less"
        )


def _of_partitions(output: Output, source: TopicInfo) -> Iterator[str]:
    if output.info.partitions < source.partitions:
        yield (
            f"topic {output.name!r} has fewer partitions ({output.info.partitions}) than the input "
            f"({source.partitions}): each receives the outcomes of several input partitions; add "
            "partitions if its readers fall behind"
        )


def _of_configuration(output: Output) -> Iterator[str]:
    if not output.info.is_described:
        yield (
            f"the configuration of topic {output.name!r} can't be read: grant DESCRIBE_CONFIGS on "
            "it to this worker's user; until then the worker learns its limits from refused records"
        )


def _of_timestamps(output: Output, source: TopicInfo) -> Iterator[str]:
    info = output.info
    if not info.keeps_timestamps:
        return
    kept = info.deletes_after_ms
    input_kept = source.deletes_after_ms or _FOR_EVER_MS
    if kept is not None and kept < input_kept and source.is_described:
        yield (
            f"topic {output.name!r} keeps records for {_span(kept)} (retention.ms), the input for "
            f"{_span(source.deletes_after_ms)}: the outcome of an older record is deleted as soon "
            'as it is written; raise retention.ms, or set output.timestamp = "labelled"'
        )
    bounds = (
        ("before", info.timestamp_before_ms, _NO_BOUND_MS),
        ("after", info.timestamp_after_ms, DEFAULT_AFTER_MS),
    )
    for side, bound, usual in bounds:
        if bound is not None and bound < usual:
            yield (
                f"topic {output.name!r} refuses timestamps of more than {_span(bound)} {side} now "
                f"(message.timestamp.{side}.max.ms): such outcomes get the time of labelling"
            )


def _span(ms: int | None) -> str:
    if ms is None:
        return "ever"
    for unit, size in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if ms >= 2 * size:
            return f"{ms / size:.3g} {unit}"
    return f"{ms / 1000:.3g} seconds"
