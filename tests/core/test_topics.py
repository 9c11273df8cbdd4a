"""Warnings about topics: each names the topic, the option and the remedy."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worker.core.topics import Output, TopicInfo, combined, size_warning, topic_warnings

DAY = 86_400_000
USUAL = TopicInfo(
    partitions=3,
    replication_factor=3,
    max_message_bytes=1_048_588,
    cleanup_policy="delete",
    retention_ms=7 * DAY,
    timestamp_type="CreateTime",
    timestamp_before_ms=2**63 - 1,
    timestamp_after_ms=3_600_000,
    min_insync_replicas=2,
)


def warnings_of(
    source: TopicInfo = USUAL,
    results: TopicInfo = USUAL,
    dead: TopicInfo = USUAL,
    *,
    event: bool = True,
) -> list[str]:
    outputs = [Output("out", results, source)]
    return topic_warnings(outputs, Output("dead", dead, source), keeps_event_time=event)


def test_an_output_of_several_inputs_must_suit_the_largest_and_the_longest_kept() -> None:
    inputs = replace(USUAL, partitions=9, retention_ms=DAY), replace(USUAL, retention_ms=9 * DAY)
    few, short = warnings_of(combined(inputs) or USUAL, USUAL, replace(USUAL, partitions=9))[:2]
    assert "topic 'out' has fewer partitions (3) than the input (9)" in few
    assert "keeps records for 7 days (retention.ms), the input for 9 days" in short


def test_an_output_without_an_input_is_compared_with_none() -> None:
    """A pattern may match nothing yet."""
    assert combined([]) is None
    few = Output("out", replace(USUAL, partitions=1, min_insync_replicas=4))
    (warning,) = topic_warnings([few], Output("dead", USUAL), keeps_event_time=True)
    assert "min.insync.replicas" in warning


def test_ordinary_topics_give_no_warning() -> None:
    assert warnings_of() == []


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"min_insync_replicas": 4}, "set min.insync.replicas to 3 or less"),
        ({"partitions": 1}, "has fewer partitions (1) than the input (3)"),
        ({"retention_ms": DAY}, "keeps records for 24 hours (retention.ms), the input for 7 days"),
        ({"timestamp_before_ms": 90_000}, "refuses timestamps of more than 90 seconds before now"),
        ({"timestamp_after_ms": 600_000}, "refuses timestamps of more than 10 minutes after now"),
        ({"cleanup_policy": "compact"}, "is compacted: a"),
    ],
)
@pytest.mark.parametrize("topic", ["out", "dead"])
def test_each_unsuitable_option_gives_a_warning(
    change: dict[str, int], part: str, topic: str
) -> None:
    which = {"out": "results", "dead": "dead"}[topic]
    (warning,) = warnings_of(**{which: replace(USUAL, **change)})  # type: ignore[arg-type]
    assert part in warning
    assert f"topic '{topic}'" in warning


def test_outputs_should_be_kept_as_long_as_an_input_kept_for_ever() -> None:
    warnings = warnings_of(source=replace(USUAL, retention_ms=-1))
    assert len(warnings) == 2
    assert all("the input for ever" in warning for warning in warnings)
    assert warnings_of(source=replace(USUAL, cleanup_policy="compact")) == warnings


def test_retention_does_not_matter_with_the_time_of_labelling() -> None:
    assert warnings_of(source=replace(USUAL, retention_ms=-1), event=False) == []


def test_retention_does_not_matter_with_log_append_time() -> None:
    stamped = replace(USUAL, timestamp_type="LogAppendTime", retention_ms=DAY, timestamp_after_ms=1)
    assert warnings_of(results=stamped) == []


def test_an_output_kept_for_ever_gives_no_warning() -> None:
    assert warnings_of(results=replace(USUAL, retention_ms=-1)) == []


def test_an_undescribed_topic_names_the_right_to_grant() -> None:
    warnings = warnings_of(results=TopicInfo(3, 3), dead=TopicInfo(3, 3))
    assert len(warnings) == 2
    for name, warning in zip(("out", "dead"), warnings, strict=True):
        assert f"of topic {name!r} can't be read: grant DESCRIBE_CONFIGS" in warning
    assert warnings_of(source=TopicInfo(3, 3)) == []


def test_a_topic_too_small_for_dead_letters_gives_a_warning() -> None:
    (warning,) = warnings_of(dead=replace(USUAL, max_message_bytes=600))
    assert "topic 'dead' accepts records of 600 bytes" in warning
    assert warnings_of(results=replace(USUAL, max_message_bytes=600)) == []


@pytest.mark.parametrize(
    ("most", "part"), [(None, None), (4_000, None), (3_000, "may not fit"), (900, "never fits")]
)
def test_the_size_of_a_result_is_compared_with_its_topic(
    most: int | None, part: str | None
) -> None:
    output = Output("out", replace(USUAL, max_message_bytes=most))
    warning = size_warning(output, least=1_000, usual=4_000, labels=100)
    if part is None:
        assert warning is None
    else:
        assert warning is not None
        assert part in warning
        assert "topic 'out' accepts" in warning
        assert "set max.message.bytes" in warning


def test_a_compacted_topic_of_notes_loses_them() -> None:
    """A note has no value, so compaction takes it for a deletion."""
    dead = Output("dead", USUAL, USUAL)
    compacted = Output("notes", replace(USUAL, cleanup_policy="compact"), USUAL)
    (warning,) = topic_warnings([], dead, [compacted], keeps_event_time=True)
    assert warning.startswith("topic 'notes' is compacted: the note of a filtered record has no")
    assert not topic_warnings([], dead, [Output("notes", USUAL, USUAL)], keeps_event_time=True)
