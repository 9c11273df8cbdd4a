"""Sample: the messages of `streamlabel check` about the newest records."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable
from types import MappingProxyType
from typing import Any

import pytest

from schemas import DeadLetterReason
from tests.support.records import raw
from worker.core.formats.format import Document, SchemaPending
from worker.core.records import Cut, Headers
from worker.core.sampling import Sample
from worker.errors import RecordRejected
from worker.settings import InputSettings


def sample(*values: Any, **settings: Any) -> Sample:
    sampled = Sample(InputSettings(**settings))
    for value in values:
        sampled.note(
            raw(0, value if isinstance(value, bytes | None) else json.dumps(value).encode())
        )
    return sampled


POST = {"post": {"body": "a text of some length", "by": "me"}, "id": 7, "lang": "en"}


def test_a_wrong_path_is_reported_with_the_members_and_a_suggestion() -> None:
    sampled = sample(*[POST] * 20)
    assert (sampled.readable, sampled.records, sampled.unreadable_share) == (0, 20, 1.0)
    assert sampled.doubtful
    assert sampled.summary() == (
        "text found in 0 of 20 (path_missing 20); members: id, lang, post; did you mean post.body?"
    )


def test_a_readable_sample_has_a_short_summary() -> None:
    sampled = sample(*[POST] * 3, text_path="post.body")
    assert (sampled.summary(), sampled.doubtful, sampled.unreadable_share) == (
        "text found in 3 of 3.",
        False,
        0.0,
    )


def test_an_empty_sample_is_not_doubtful() -> None:
    sampled = sample(None)  # a tombstone is not counted
    assert (sampled.records, sampled.unreadable_share, sampled.doubtful) == (0, 0.0, False)
    assert sampled.summary() == "the input has no records yet to check for a text"


def test_single_unreadable_records_are_reported_without_advice() -> None:
    sampled = sample(*[{"text": "good"}] * 7, {"title": "no text"}, b"{", b"{")
    assert sampled.unreadable_share == 0.2
    assert sampled.summary() == (
        "text found in 7 of 10 (not_json 2, path_missing 1); members: text, title."
    )
    assert sampled.doubtful


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ({"a": {"b": {"c": {"d": "deep enough"}}}}, "did you mean a.b.c.d?"),
        ({"a": {"b": {"c": {"d": {"e": "too deep"}}}}}, "path_missing 1); members: a."),
        ({"posts": ["the first", "the second"]}, "did you mean posts.0?"),
        ({"a.b": "a name that no path can tell", "": "nor this", "c": "x"}, "did you mean c?"),
        ({"a": 1, "b": " "}, "members: a, b."),
        (b"just words", 'no record is JSON: did you mean input.format = "text"?'),
        (b"[]", "text found in 0 of 1 (not_an_object 1)."),
        (b"[" * 100_000, 'did you mean input.format = "text"?'),
        ({"\x1b[2Jname": "clears the screen"}, "did you mean [U+001B][2Jname?"),
        (b"\0\0\0\0\7\2a", 'did you mean input.format = "auto", with registry.url?'),
    ],
)
def test_the_summary_ends_with_advice(value: Any, advice: str) -> None:
    assert sample(value).summary().endswith(advice)


def test_the_path_with_the_longest_strings_is_suggested() -> None:
    """Over all records, and a single long text does not outweigh the others."""
    values = [{"title": "short", "body": "a longer text " * 3}] * 9 + [{"title": "x" * 10_000}]
    assert sample(*values).summary().endswith("did you mean body?")


def test_the_number_of_listed_members_is_limited() -> None:
    wide = {f"member-{n:03}": n for n in range(500)}
    summary = sample(wide).summary()
    assert summary.count("member-") == 12
    assert ", ...." in summary


def test_plain_text_is_doubtful_if_all_of_it_is_json() -> None:
    sampled = sample(POST, POST, format="text")
    assert sampled.doubtful
    assert sampled.summary() == (
        'text found in 2 of 2; all are JSON objects: did you mean input.format = "json"?'
    )
    assert not sample(POST, b"plain", format="text").doubtful
    assert sample(b"\xff", format="text").summary() == "text found in 0 of 1 (not_utf8 1)."


def test_a_record_that_was_not_read_whole_is_not_searched() -> None:
    sampled = Sample(InputSettings())
    cut = Cut(record_bytes=100, limit=50, value_bytes=90, complete=True)
    sampled.note(dataclasses.replace(raw(0, b'{"a":"text"}'), cut=cut))
    assert sampled.summary() == "text found in 0 of 1 (too_large 1)."


class FramedFormat:
    """JSON behind a letter: `s` has a schema, `p` one that is pending, and others have none."""

    has_members = True

    def parse(self, value: bytes, headers: Headers, topic: str = "") -> Document:
        if value[:1] == b"p":
            raise SchemaPending(7)
        if value[:1] != b"s":
            raise RecordRejected(DeadLetterReason.NOT_FRAMED, "no schema's id")
        payload = json.loads(value[1:])
        return Document(MappingProxyType(payload) if isinstance(payload, dict) else payload)

    def settled(self, schema: Hashable) -> bool:
        raise NotImplementedError


def framed_sample(*values: bytes, **settings: Any) -> Sample:
    sampled = Sample(InputSettings(format="avro", **settings), FramedFormat())
    for value in values:
        sampled.note(raw(0, value))
    return sampled


def test_framed_records_are_searched_by_their_schema() -> None:
    post = b"s" + json.dumps(POST).encode()
    assert framed_sample(post, text_path="post.body").summary() == "text found in 1 of 1."
    assert framed_sample(post, post, b"{}").summary() == (
        "text found in 0 of 3 (path_missing 2, not_framed 1); members: id, lang, post; "
        "did you mean post.body?"
    )
    assert framed_sample(b"s[]").summary().startswith("text found in 0 of 1")


def test_records_without_a_frame_have_advice() -> None:
    summary = framed_sample(b"{}", b"[]").summary()
    assert summary.endswith('no record has a schema\'s id: did you mean input.format = "json"?')


def test_a_record_whose_schema_is_pending_is_noted_later() -> None:
    sampled = framed_sample()
    with pytest.raises(SchemaPending):
        sampled.note(raw(0, b"p"))
    assert sampled.records == 0
