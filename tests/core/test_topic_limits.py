"""What a topic takes: as told, as learnt from refusals."""

from __future__ import annotations

import pytest

from worker.core.topic_limits import LARGEST_RECORD, TopicLimits
from worker.core.topics import DEFAULT_AFTER_MS, TopicInfo

NOW = 1_700_000_000_000
DAY = 86_400_000


def told(**more: object) -> TopicLimits:
    return TopicLimits.of(TopicInfo(3, 1, max_message_bytes=5_000, **more))  # type: ignore[arg-type]


def test_a_topic_that_tells_nothing_is_tried() -> None:
    terms = TopicLimits.of(TopicInfo(3, 1))
    assert (terms.max_bytes, terms.most_bytes) == (None, LARGEST_RECORD)
    assert (terms.before_ms, terms.after_ms) == (None, DEFAULT_AFTER_MS)
    assert not terms.expired(0, NOW)


def test_a_topic_is_taken_at_its_word() -> None:
    terms = told(retention_ms=DAY, timestamp_before_ms=DAY, timestamp_after_ms=60_000)
    assert terms.most_bytes == 5_000
    assert (terms.before_ms, terms.after_ms) == (DAY, 60_000)
    assert terms.expired(NOW - DAY, NOW)
    assert not terms.expired(NOW - DAY + 1, NOW)
    assert not terms.expired(-1, NOW)


def test_a_topic_that_stamps_records_itself_refuses_no_timestamp_and_expires_none() -> None:
    terms = told(
        timestamp_type="LogAppendTime",
        timestamp_before_ms=1,
        timestamp_after_ms=1,
        retention_ms=DAY,
    )
    assert terms.timestamp(0, NOW) == 0
    assert not terms.expired(0, NOW)


@pytest.mark.parametrize(
    ("away_ms", "kept"),
    [(0, True), (-DAY + 61_000, True), (-DAY + 59_000, False), (53_000, True), (54_000, False)],
)
def test_a_timestamp_out_of_bounds_becomes_now(away_ms: int, kept: bool) -> None:
    """Less a bit, for the broker's clock and ours may differ."""
    terms = told(timestamp_before_ms=DAY, timestamp_after_ms=60_000)
    assert terms.timestamp(NOW + away_ms, NOW) == (NOW + away_ms if kept else NOW)


def test_a_result_that_is_refused_for_its_size_rules_out_its_like_alone() -> None:
    terms = TopicLimits()
    terms.refused_size(6_000_000, cut=False)
    assert terms.most_bytes == 5_999_999


def test_what_can_be_cut_is_cut_to_the_default_first_and_then_in_halves() -> None:
    terms = TopicLimits()
    guesses = []
    for _ in range(3):
        terms.refused_size(min(6_000_000, terms.most_bytes), cut=True)
        guesses.append(terms.most_bytes)
    assert guesses == [1_048_588, 524_294, 262_147]


@pytest.mark.parametrize("away_ms", [-3 * DAY, 3 * DAY])
def test_the_range_of_timestamps_is_learnt_from_the_brokers_words(away_ms: int) -> None:
    words = f"out of range. The timestamp should be within [{NOW - DAY}, {NOW + DAY}]"
    terms = TopicLimits()
    terms.refused_timestamp(NOW + away_ms, NOW, words)
    assert (terms.before_ms if away_ms < 0 else terms.after_ms) == DAY
    assert terms.timestamp(NOW + away_ms, NOW) == NOW
    assert terms.timestamp(NOW + away_ms // 4, NOW) == NOW + away_ms // 4 or away_ms > 0


@pytest.mark.parametrize("away_ms", [-3 * DAY, 3 * DAY])
def test_without_words_half_of_what_was_refused_is_tried(away_ms: int) -> None:
    terms = TopicLimits()
    terms.refused_timestamp(NOW + away_ms, NOW, "no")
    assert (terms.before_ms if away_ms < 0 else terms.after_ms) == 3 * DAY // 2
