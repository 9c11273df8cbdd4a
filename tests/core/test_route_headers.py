"""The headers of routed records: what is written is read again, and any other value is harmless."""

from __future__ import annotations

import pytest

from worker.core.route_headers import (
    COPY_HEADER,
    FILTERED_HEADER,
    ROUTE_HEADER,
    CopyNote,
    FilteredNote,
    RouteNote,
    parse_filtered,
    parse_route,
)


def test_the_names_of_the_headers() -> None:
    """Other programs read them: they stay."""
    names = (ROUTE_HEADER, COPY_HEADER, FILTERED_HEADER)
    assert names == ("streamlabel-route", "streamlabel-copy", "streamlabel-filtered")


@pytest.mark.parametrize(
    ("note", "value"),
    [
        (RouteNote("angry"), b'{"route":"angry"}'),
        (
            RouteNote("", (CopyNote("alerts", "texts.alerts"), CopyNote("all", "texts.all"))),
            b'{"route":"","copies":{"alerts":"texts.alerts","all":"texts.all"}}',
        ),
    ],
)
def test_a_result_announces_its_route_and_its_copies(note: RouteNote, value: bytes) -> None:
    """Copies have the name of their route and their topic."""
    assert note.header == (ROUTE_HEADER, value)
    assert parse_route(value) == note


def test_a_note_tells_why_a_record_was_filtered() -> None:
    """The timestamp is the last member, where the audit looks for it."""
    note = FilteredNote("route", "spam", "0a1b", 1_700_000_000_000)
    name, value = note.header
    assert name == FILTERED_HEADER
    assert value.endswith(b'"timestamp_ms":1700000000000}')
    assert parse_filtered(value) == note
    assert note.words == "route spam"
    assert FilteredNote("prepare.function", "", "", 0).words == "prepare.function"


@pytest.mark.parametrize(
    "value",
    [None, b"", b"[]", b'"route"', b"\xff", b"[" * 60_000, b"{" * 64_001, b'{"route":1}',
     b'{"route":"a","copies":[]}'],
)  # fmt: skip
def test_another_value_names_no_route(value: bytes | None) -> None:
    """Any producer may write such a header."""
    assert parse_route(value) == RouteNote()


def test_members_of_another_type_are_left_out() -> None:
    """The rest of the note holds."""
    assert parse_route(b'{"route":"a","copies":{"b":1,"c":"t"}}') == RouteNote(
        "a", (CopyNote("c", "t"),)
    )
    assert parse_filtered(b'{"reason":1,"route":[],"timestamp_ms":true}') == FilteredNote(
        "unknown", "", "", 0
    )
    assert parse_filtered(None).reason == "unknown"
