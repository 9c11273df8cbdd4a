"""The sample stream is deterministic, keyed, and has each kind of broken record."""

from __future__ import annotations

import json
from collections import Counter

from schemas.dead_letter import DeadLetterReason
from worker.core.decoder import Decoder
from worker.core.records import InvalidRecord, RawRecord, RecordRef
from worker.demo.fallback_posts import fallback_posts
from worker.demo.sample import SampleRecord, sample_stream
from worker.settings import InputSettings

MAX_BYTES = 20_000
INPUT_REASONS = {
    DeadLetterReason.NULL_VALUE,
    DeadLetterReason.TOO_LARGE,
    DeadLetterReason.NOT_UTF8,
    DeadLetterReason.NOT_JSON,
    DeadLetterReason.NOT_AN_OBJECT,
    DeadLetterReason.PATH_MISSING,
    DeadLetterReason.NOT_A_STRING,
    DeadLetterReason.EMPTY_TEXT,
}


def _stream(number: int = 300) -> list[SampleRecord]:
    return sample_stream(fallback_posts(), number, MAX_BYTES)


def _rated(stream: list[SampleRecord]) -> list[SampleRecord]:
    return [record for record in stream if record.valence is not None]


def test_fallback_posts_are_enough_and_distinct() -> None:
    """There are at least 60 different texts, rated on both sides of zero and within the scale."""
    posts = fallback_posts()
    assert len(posts) >= 60
    assert len({post.text for post in posts}) == len({post.id for post in posts}) == len(posts)
    assert all(-4 <= post.valence <= 4 for post in posts)
    assert min(sum(p.valence >= 1 for p in posts), sum(p.valence <= -1 for p in posts)) >= 20


def test_a_rerun_sends_the_same_bytes() -> None:
    assert _stream() == _stream()


def test_a_larger_number_repeats_the_posts_under_new_ids() -> None:
    """A repeated post keeps its author."""
    posts = _rated(_stream(300))
    documents = [json.loads(record.value or b"") for record in posts]
    assert len(posts) == 300
    assert len({document["id"] for document in documents}) == 300
    assert documents[0]["text"] == documents[len(fallback_posts())]["text"]
    assert posts[0].key == posts[len(fallback_posts())].key
    assert all(
        record.key.decode() == d["author"] for record, d in zip(posts, documents, strict=True)
    )


def test_fewer_posts_than_special_records() -> None:
    """A stream of one post still has every kind of broken record."""
    assert len(_rated(_stream(1))) == 1
    assert {record.expected for record in _stream(1)} >= INPUT_REASONS


def test_a_few_authors_write_most_posts() -> None:
    """Keys repeat unevenly, as on a social network."""
    posts = Counter(record.key for record in _stream(300))
    assert 20 < len(posts) < 200
    assert posts.most_common(1)[0][1] > 3 * 300 / len(posts)


def test_every_dead_letter_reason_of_an_input_occurs() -> None:
    """A blank and an empty text have the same reason."""
    reasons = Counter(record.expected for record in _stream() if record.expected)
    assert set(reasons) == INPUT_REASONS
    assert reasons[DeadLetterReason.EMPTY_TEXT] == 2


def test_the_worker_reads_each_record_as_expected() -> None:
    """The decoder returns the expected reason for broken records and a text for all others."""
    decoder = Decoder(InputSettings(max_bytes=MAX_BYTES))
    for number, record in enumerate(_stream(100)):
        raw = RawRecord(
            ref=RecordRef("texts.in", 0, number, 0),
            timestamp_ms=0,
            key=record.key,
            value=record.value,
            headers=(),
            polled_at=0.0,
        )
        decoded = decoder.decode(raw)
        reason = decoded.reason if isinstance(decoded, InvalidRecord) else None
        assert reason == record.expected, record.text
