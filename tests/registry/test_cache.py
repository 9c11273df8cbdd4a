"""The schemas in memory are bounded, and none is lost before a waiting record has seen it."""

from __future__ import annotations

import math

import pytest

from schemas.dead_letter import DeadLetterReason
from worker.errors import RecordRejected
from worker.registry import cache as cache_module
from worker.registry.cache import Entry, SchemaCache

REJECTION = RecordRejected(DeadLetterReason.UNKNOWN_SCHEMA, "not there")


def entry(
    at: float = 0.0, rejection: RecordRejected | None = None, characters: int = 0
) -> Entry[str]:
    return Entry("schema", None, rejection, 60.0 if rejection else math.inf, at, characters)


def kept(cache: SchemaCache[str], *keys: int) -> list[int]:
    """Return the keys that are there; this reads them."""
    return [key for key in keys if cache.get(key, 0.0)]


def test_the_schema_used_longest_ago_makes_room() -> None:
    cache: SchemaCache[str] = SchemaCache(2)
    cache.put(1, entry())
    cache.put(2, entry())
    assert kept(cache, 2, 1) == [2, 1]
    cache.put(3, entry())
    assert kept(cache, 1, 2, 3) == [1, 3]
    assert len(cache) == 2


def test_a_schema_is_kept_above_the_bound_until_a_record_has_seen_it() -> None:
    cache: SchemaCache[str] = SchemaCache(1)
    for key in (1, 2, 3):
        cache.put(key, entry())
    assert kept(cache, 1, 2, 3) == [1, 2, 3]
    cache.put(4, entry())
    assert kept(cache, 1, 2, 3, 4) == [4]


def test_long_schemas_make_room_before_their_number_is_reached(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those used longest ago; one without a text, as an enriched one, costs nothing."""
    monkeypatch.setattr(cache_module, "_CHARACTERS", 100)
    cache: SchemaCache[str] = SchemaCache(10)
    for key, characters in enumerate((60, 40, 0, 0)):
        cache.put(key, entry(characters=characters))
    assert kept(cache, 0, 1, 2, 3) == [0, 1, 2, 3]
    cache.put(4, entry(characters=60))
    assert kept(cache, 0, 1, 2, 3, 4) == [1, 2, 3, 4]
    cache.put(4, entry(characters=10))
    cache.put(5, entry(characters=50))
    assert kept(cache, 1, 2, 3, 4, 5) == [1, 2, 3, 4, 5], "a schema that is replaced counts once"


def test_a_schema_longer_than_the_bound_is_kept_until_another_comes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(cache_module, "_CHARACTERS", 100)
    cache: SchemaCache[str] = SchemaCache(10)
    cache.put(1, entry(characters=1_000))
    assert kept(cache, 1) == [1]
    cache.put(2, entry(characters=1))
    assert kept(cache, 1, 2) == [2]


def test_a_schema_that_no_record_came_for_is_kept_for_a_minute() -> None:
    cache: SchemaCache[str] = SchemaCache(1)
    cache.put(1, entry(at=0))
    cache.put(2, entry(at=59))
    assert len(cache) == 2
    cache.put(3, entry(at=60))
    assert kept(cache, 1, 2, 3) == [2, 3]


def test_the_newest_schema_is_not_the_one_that_makes_room() -> None:
    cache: SchemaCache[str] = SchemaCache(1)
    cache.put(1, entry(at=0))
    cache.put(2, entry(at=100))
    assert kept(cache, 1, 2) == [2]


def test_a_rejection_is_believed_for_its_time_once_a_record_has_seen_it() -> None:
    cache: SchemaCache[str] = SchemaCache(2)
    cache.put(1, entry(at=0, rejection=REJECTION))
    assert cache.get(1, 100.0), "the record that waits for it sees it, however late it comes"
    assert cache.get(1, 100.0) is None
    cache.put(1, entry(at=100, rejection=REJECTION))
    assert cache.get(1, 100.0)
    assert cache.get(1, 159.9)
    assert cache.get(1, 160.0) is None
