"""TopicLimits: read from the topic's configuration, and corrected by refusals."""

from __future__ import annotations

import pytest

from worker.core.topic_limits import LARGEST_RECORD, TopicLimits
from worker.core.topics import DEFAULT_AFTER_MS, TopicInfo

NOW = 1_700_000_000_000
DAY = 86_400_000


def described(**more: object) -> TopicLimits:
    return TopicLimits.of(TopicInfo(3, 1, max_message_bytes=5_000, **more))  # type: ignore[arg-type]


def test_an_undescribed_topic_has_the_default_limits() -> None:
    limits = TopicLimits.of(TopicInfo(3, 1))
    assert (limits.max_bytes, limits.most_bytes) == (None, LARGEST_RECORD)
    assert (limits.before_ms, limits.after_ms) == (None, DEFAULT_AFTER_MS)
    assert not limits.expired(0, NOW)


def test_a_described_topic_has_its_own_limits() -> None:
    limits = described(retention_ms=DAY, timestamp_before_ms=DAY, timestamp_after_ms=60_000)
    assert limits.most_bytes == 5_000
    assert (limits.before_ms, limits.after_ms) == (DAY, 60_000)
    assert limits.expired(NOW - DAY, NOW)
    assert not limits.expired(NOW - DAY + 1, NOW)
    assert not limits.expired(-1, NOW)


@pytest.mark.parametrize(
    ("max_request", "described_bytes", "undescribed_bytes"),
    [(None, 5_000, LARGEST_RECORD), (4_000, 2_000, 2_000), (1_000_000, 5_000, 998_000)],
)
def test_a_limit_of_requests_holds_where_the_topics_is_larger_or_unknown(
    max_request: int | None, described_bytes: int, undescribed_bytes: int
) -> None:
    """A broker that closes the connection of a large request never says why."""
    described_topic = TopicLimits.of(TopicInfo(3, 1, max_message_bytes=5_000), max_request)
    assert described_topic.most_bytes == described_bytes
    undescribed = TopicLimits.of(TopicInfo(3, 1), max_request)
    assert undescribed.most_bytes == undescribed_bytes
    assert undescribed.after_ms == DEFAULT_AFTER_MS


def test_a_topic_with_log_append_time_accepts_every_timestamp() -> None:
    limits = described(
        timestamp_type="LogAppendTime",
        timestamp_before_ms=1,
        timestamp_after_ms=1,
        retention_ms=DAY,
    )
    assert limits.timestamp(0, NOW) == 0
    assert not limits.expired(0, NOW)


@pytest.mark.parametrize(
    ("away_ms", "kept"),
    [(0, True), (-DAY + 61_000, True), (-DAY + 59_000, False), (53_000, True), (54_000, False)],
)
def test_a_timestamp_out_of_bounds_becomes_now(away_ms: int, kept: bool) -> None:
    """With a margin, as the clocks of broker and worker may differ."""
    limits = described(timestamp_before_ms=DAY, timestamp_after_ms=60_000)
    assert limits.timestamp(NOW + away_ms, NOW) == (NOW + away_ms if kept else NOW)


def test_a_refused_size_limits_results_to_less() -> None:
    limits = TopicLimits()
    limits.refused_size(6_000_000, cut=False)
    assert limits.most_bytes == 5_999_999


def test_the_limit_of_cut_records_drops_to_the_default_and_then_by_halves() -> None:
    limits = TopicLimits()
    guesses = []
    for _ in range(3):
        limits.refused_size(min(6_000_000, limits.most_bytes), cut=True)
        guesses.append(limits.most_bytes)
    assert guesses == [1_048_588, 524_294, 262_147]


@pytest.mark.parametrize("away_ms", [-3 * DAY, 3 * DAY])
def test_the_range_of_timestamps_is_read_from_the_brokers_message(away_ms: int) -> None:
    message = f"out of range. The timestamp should be within [{NOW - DAY}, {NOW + DAY}]"
    limits = TopicLimits()
    limits.refused_timestamp(NOW + away_ms, NOW, message)
    assert (limits.before_ms if away_ms < 0 else limits.after_ms) == DAY
    assert limits.timestamp(NOW + away_ms, NOW) == NOW
    assert limits.timestamp(NOW + away_ms // 4, NOW) == NOW + away_ms // 4 or away_ms > 0


@pytest.mark.parametrize("away_ms", [-3 * DAY, 3 * DAY])
def test_without_a_range_half_of_the_refused_distance_is_tried(away_ms: int) -> None:
    limits = TopicLimits()
    limits.refused_timestamp(NOW + away_ms, NOW, "no")
    assert (limits.before_ms if away_ms < 0 else limits.after_ms) == 3 * DAY // 2
