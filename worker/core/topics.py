"""Facts about one topic, and doubts about the three of them together. Pure.

Facts come in from `kafka_io/admin`; sentences go out, for the log at start and for `check`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

DEFAULT_MAX_MESSAGE_BYTES = 1_048_588  # Kafka's own default of `max.message.bytes`
DEFAULT_AFTER_MS = 3_600_000  # and of `message.timestamp.after.max.ms`

_SMALLEST_LETTER = 4_096  # bytes: why it is one, without anything of the record
_NO_BOUND_MS = 2**53  # Kafka's "no bound" is the largest 64-bit number
_FOR_EVER_MS = 2**63


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """One topic; a configuration is None where the broker does not tell it.

    Attributes:
        max_message_bytes: largest batch that it takes.
        cleanup_policy: `delete`, `compact` or both.
        retention_ms: how long records are kept, -1 for ever.
        timestamp_type: `CreateTime` keeps a record's timestamp, `LogAppendTime` replaces it.
        timestamp_before_ms, timestamp_after_ms: how far behind or ahead of the broker's clock a
            timestamp may lie.
        min_insync_replicas: copies that must have a record before it is acknowledged.
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
    def told(self) -> bool:
        """True where the broker tells the topic's configuration."""
        return self.max_message_bytes is not None

    @property
    def compacted(self) -> bool:
        """True if records vanish from the middle of the topic."""
        return "compact" in (self.cleanup_policy or "")

    @property
    def keeps_timestamps(self) -> bool:
        """True where a record has the timestamp that it was sent with."""
        return self.timestamp_type != "LogAppendTime"

    @property
    def deletes_after_ms(self) -> int | None:
        """Age at which records are deleted; None: never, or not known."""
        if self.retention_ms is None or self.retention_ms < 0:
            return None
        return self.retention_ms if "delete" in (self.cleanup_policy or "delete") else None


class Output(NamedTuple):
    """A topic that is written to."""

    name: str
    info: TopicInfo


def doubts(
    source: TopicInfo, results: Output, dead_letters: Output, *, keeps_event_time: bool
) -> list[str]:
    """Tell an operator, before a record is written, how the outputs may fail the results.

    Args:
        source: the input.
        results: where results go.
        dead_letters: where dead letters go.
        keeps_event_time: whether outcomes keep the timestamps of their records.
    """
    found: list[str] = []
    for output in (results, dead_letters):
        found += _of_copies(output)
        found += _of_partitions(output, source)
        found += _of_configuration(output)
        found += _of_timestamps(output, source) if keeps_event_time else ()
    if results.info.compacted:
        found.append(
            f"topic {results.name!r} is compacted: a result without a key becomes a dead letter, "
            "and of the results with one key only the newest is kept (cleanup.policy)"
        )
    if dead_letters.info.compacted:
        found.append(
            f"topic {dead_letters.name!r} is compacted: a dead letter without a key stops the "
            "worker, and of those with one key only the newest is kept (cleanup.policy)"
        )
    if dead_letters.info.told and (dead_letters.info.max_message_bytes or 0) < _SMALLEST_LETTER:
        found.append(
            f"topic {dead_letters.name!r} takes {dead_letters.info.max_message_bytes} bytes, less "
            f"than a dead letter may need without its value: set max.message.bytes to at least "
            f"{_SMALLEST_LETTER}"
        )
    return found


def too_small(output: Output, least: int, usual: int, labels: int) -> str | None:
    """A sentence where a result of the model does not fit its topic, or hardly.

    Args:
        output: where results go.
        least: bytes of a result without key, headers and id, its scores in one digit.
        usual: the same with scores of all digits.
        labels: how many the model has.
    """
    most = output.info.max_message_bytes
    if most is None or usual <= most:
        return None
    which = "never fits" if least > most else "may not fit"
    return (
        f"a result of this model has about {usual:,} bytes ({labels:,} labels) and {which}: topic "
        f"{output.name!r} takes {most:,}; set max.message.bytes of the topic to {2 * usual:,}, or "
        "take a model with fewer labels"
    )


def _of_copies(output: Output) -> Iterator[str]:
    copies, needed = output.info.replication_factor, output.info.min_insync_replicas or 0
    if needed > copies:
        yield (
            f"topic {output.name!r} has {copies} copies and min.insync.replicas = {needed}: "
            f"nothing can be written to it; set min.insync.replicas to {copies} or less"
        )


def _of_partitions(output: Output, source: TopicInfo) -> Iterator[str]:
    if output.info.partitions < source.partitions:
        yield (
            f"topic {output.name!r} has {output.info.partitions} partitions, the input "
            f"{source.partitions}: each takes the outcomes of several input partitions; add "
            "partitions where its readers are to keep up"
        )


def _of_configuration(output: Output) -> Iterator[str]:
    if not output.info.told:
        yield (
            f"the configuration of topic {output.name!r} can't be read: grant DESCRIBE_CONFIGS on "
            "it to this worker's user; until then the worker finds out by trying what it takes"
        )


def _of_timestamps(output: Output, source: TopicInfo) -> Iterator[str]:
    info = output.info
    if not info.keeps_timestamps:
        return
    kept = info.deletes_after_ms
    if kept is not None and kept < (source.deletes_after_ms or _FOR_EVER_MS) and source.told:
        yield (
            f"topic {output.name!r} keeps records for {_span(kept)} (retention.ms), the input for "
            f"{_span(source.deletes_after_ms)}: the outcome of an older record is deleted as soon "
            'as it is written; set retention.ms, or output.timestamp = "labelled"'
        )
    bounds = (
        ("before", info.timestamp_before_ms, _NO_BOUND_MS),
        ("after", info.timestamp_after_ms, DEFAULT_AFTER_MS),
    )
    for side, bound, usual in bounds:
        if bound is not None and bound < usual:
            yield (
                f"topic {output.name!r} refuses timestamps of more than {_span(bound)} {side} now "
                f"(message.timestamp.{side}.max.ms): there the time of labelling takes their place"
            )


def _span(ms: int | None) -> str:
    if ms is None:
        return "ever"
    for unit, size in (("days", 86_400_000), ("hours", 3_600_000), ("minutes", 60_000)):
        if ms >= 2 * size:
            return f"{ms / size:.3g} {unit}"
    return f"{ms / 1000:.3g} seconds"
