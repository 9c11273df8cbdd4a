"""The sample stream: the same every time, keyed, with each kind of broken record once."""

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
FROM_OUTSIDE = {
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
    """At least 60, no text twice, rated on both sides of zero and within the scale."""
    posts = fallback_posts()
    assert len(posts) >= 60
    assert len({post.text for post in posts}) == len({post.id for post in posts}) == len(posts)
    assert all(-4 <= post.valence <= 4 for post in posts)
    assert min(sum(p.valence >= 1 for p in posts), sum(p.valence <= -1 for p in posts)) >= 20


def test_same_every_time() -> None:
    """A rerun sends the same bytes."""
    assert _stream() == _stream()


def test_as_many_posts_as_wanted_under_ids_of_their_own() -> None:
    """More posts than the sample has repeat it; the copies keep their author."""
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
    """One post is enough for a stream with every kind of broken record."""
    assert len(_rated(_stream(1))) == 1
    assert {record.expected for record in _stream(1)} >= FROM_OUTSIDE


def test_few_authors_write_much() -> None:
    """Keys repeat, and unevenly, as on a social network."""
    posts = Counter(record.key for record in _stream(300))
    assert 20 < len(posts) < 200
    assert posts.most_common(1)[0][1] > 3 * 300 / len(posts)


def test_every_reason_that_an_input_can_have_is_there() -> None:
    """All that can be wrong with a record, blank and empty texts both."""
    reasons = Counter(record.expected for record in _stream() if record.expected)
    assert set(reasons) == FROM_OUTSIDE
    assert reasons[DeadLetterReason.EMPTY_TEXT] == 2


def test_the_worker_reads_each_record_as_expected() -> None:
    """The decoder gives exactly the expected reasons, and a text for all the others."""
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
