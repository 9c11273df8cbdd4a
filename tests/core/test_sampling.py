"""Sample: what `streamlabel check` says of the newest records."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from tests.support.records import raw
from worker.core.records import Cut
from worker.core.sampling import Sample
from worker.settings import InputSettings


def sample(*values: Any, **settings: Any) -> Sample:
    found = Sample(InputSettings(**settings))
    for value in values:
        found.note(raw(0, value if isinstance(value, bytes | None) else json.dumps(value).encode()))
    return found


POST = {"post": {"body": "a text of some length", "by": "me"}, "id": 7, "lang": "en"}


def test_a_wrong_path_is_told_with_what_is_there_and_a_better_one() -> None:
    found = sample(*[POST] * 20)
    assert (found.readable, found.records, found.unreadable_share) == (0, 20, 1.0)
    assert found.doubtful
    assert found.summary() == (
        "text found in 0 of 20 (path_missing 20); members there: id, lang, post; "
        "did you mean post.body?"
    )


def test_what_is_well_is_told_in_few_words() -> None:
    found = sample(*[POST] * 3, text_path="post.body")
    assert (found.summary(), found.doubtful, found.unreadable_share) == (
        "text found in 3 of 3.",
        False,
        0.0,
    )


def test_no_record_is_no_doubt() -> None:
    found = sample(None)  # a tombstone is none
    assert (found.records, found.unreadable_share, found.doubtful) == (0, 0.0, False)
    assert found.summary() == "there is no record yet to look for a text in"


def test_some_that_can_not_be_read_are_told_and_nothing_is_advised() -> None:
    found = sample(*[{"text": "good"}] * 7, {"title": "no text"}, b"{", b"{")
    assert found.unreadable_share == 0.2
    assert found.summary() == (
        "text found in 7 of 10 (not_json 2, path_missing 1); members there: text, title."
    )
    assert found.doubtful


@pytest.mark.parametrize(
    ("value", "advice"),
    [
        ({"a": {"b": {"c": {"d": "deep enough"}}}}, "did you mean a.b.c.d?"),
        ({"a": {"b": {"c": {"d": {"e": "too deep"}}}}}, "path_missing 1); members there: a."),
        ({"posts": ["the first", "the second"]}, "did you mean posts.0?"),
        ({"a.b": "a name that no path can tell", "": "nor this", "c": "x"}, "did you mean c?"),
        ({"a": 1, "b": " "}, "members there: a, b."),
        (b"just words", 'none is JSON: did you mean input.format = "text"?'),
        (b"[]", "text found in 0 of 1 (not_an_object 1)."),
        (b"[" * 100_000, 'did you mean input.format = "text"?'),
        ({"\x1b[2Jname": "clears the screen"}, "did you mean [U+001B][2Jname?"),
    ],
)
def test_advice_is_given_where_there_is_some(value: Any, advice: str) -> None:
    assert sample(value).summary().endswith(advice)


def test_the_longest_strings_are_likely_texts() -> None:
    """By all records together, and no one record's essay outweighs the others."""
    values = [{"title": "short", "body": "a longer text " * 3}] * 9 + [{"title": "x" * 10_000}]
    assert sample(*values).summary().endswith("did you mean body?")


def test_many_members_are_not_all_told() -> None:
    wide = {f"member-{n:03}": n for n in range(500)}
    told = sample(wide).summary()
    assert told.count("member-") == 12
    assert ", ...." in told


def test_plain_text_is_doubted_where_all_of_it_is_json() -> None:
    found = sample(POST, POST, format="text")
    assert found.doubtful
    assert found.summary() == (
        'text found in 2 of 2; all are JSON objects: did you mean input.format = "json"?'
    )
    assert not sample(POST, b"plain", format="text").doubtful
    assert sample(b"\xff", format="text").summary() == "text found in 0 of 1 (not_utf8 1)."


def test_a_record_that_was_not_read_whole_is_not_looked_into() -> None:
    found = Sample(InputSettings())
    cut = Cut(record_bytes=100, limit=50, value_bytes=90, complete=True)
    found.note(dataclasses.replace(raw(0, b'{"a":"text"}'), cut=cut))
    assert found.summary() == "text found in 0 of 1 (too_large 1)."
