"""Doubts about the topics: each in a sentence that names the topic, the option and what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from worker.core.topics import Output, TopicInfo, size_warning, topic_warnings

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


def said(
    source: TopicInfo = USUAL,
    results: TopicInfo = USUAL,
    dead: TopicInfo = USUAL,
    *,
    event: bool = True,
) -> list[str]:
    return topic_warnings(
        source, Output("out", results), Output("dead", dead), keeps_event_time=event
    )


def test_usual_topics_are_not_doubted() -> None:
    assert said() == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"min_insync_replicas": 4}, "set min.insync.replicas to 3 or less"),
        ({"partitions": 1}, "has 1 partitions, the input 3"),
        ({"retention_ms": DAY}, "keeps records for 24 hours (retention.ms), the input for 7 days"),
        ({"timestamp_before_ms": 90_000}, "refuses timestamps of more than 90 seconds before now"),
        ({"timestamp_after_ms": 600_000}, "refuses timestamps of more than 10 minutes after now"),
        ({"cleanup_policy": "compact"}, "is compacted: a"),
    ],
)
@pytest.mark.parametrize("topic", ["out", "dead"])
def test_each_doubt_has_its_sentence(change: dict[str, int], words: str, topic: str) -> None:
    which = {"out": "results", "dead": "dead"}[topic]
    (sentence,) = said(**{which: replace(USUAL, **change)})  # type: ignore[arg-type]
    assert words in sentence
    assert f"topic '{topic}'" in sentence


def test_an_input_that_is_kept_for_ever_outlives_every_other() -> None:
    sentences = said(source=replace(USUAL, retention_ms=-1))
    assert len(sentences) == 2
    assert all("the input for ever" in sentence for sentence in sentences)
    assert said(source=replace(USUAL, cleanup_policy="compact")) == sentences


def test_outcomes_with_the_time_of_labelling_outlive_nothing() -> None:
    assert said(source=replace(USUAL, retention_ms=-1), event=False) == []


def test_a_topic_that_stamps_records_itself_deletes_none_too_early() -> None:
    stamped = replace(USUAL, timestamp_type="LogAppendTime", retention_ms=DAY, timestamp_after_ms=1)
    assert said(results=stamped) == []


def test_an_output_that_is_kept_for_ever_is_not_doubted() -> None:
    assert said(results=replace(USUAL, retention_ms=-1)) == []


def test_what_can_not_be_read_names_the_right_to_grant() -> None:
    sentences = said(results=TopicInfo(3, 3), dead=TopicInfo(3, 3))
    assert len(sentences) == 2
    for name, sentence in zip(("out", "dead"), sentences, strict=True):
        assert f"of topic {name!r} can't be read: grant DESCRIBE_CONFIGS" in sentence
    assert said(source=TopicInfo(3, 3)) == []


def test_a_topic_that_is_too_small_for_a_dead_letters_reason_is_told() -> None:
    (sentence,) = said(dead=replace(USUAL, max_message_bytes=600))
    assert "topic 'dead' takes 600 bytes" in sentence
    assert said(results=replace(USUAL, max_message_bytes=600)) == []


@pytest.mark.parametrize(
    ("most", "words"), [(None, None), (4_000, None), (3_000, "may not fit"), (900, "never fits")]
)
def test_a_result_is_held_against_what_its_topic_takes(most: int | None, words: str | None) -> None:
    output = Output("out", replace(USUAL, max_message_bytes=most))
    sentence = size_warning(output, least=1_000, usual=4_000, labels=100)
    if words is None:
        assert sentence is None
    else:
        assert sentence is not None
        assert words in sentence
        assert "topic 'out' takes" in sentence
        assert "set max.message.bytes" in sentence
