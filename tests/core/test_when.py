"""Places in a log as a person names them."""

from __future__ import annotations

import pytest

from worker.core.when import Span, When, parse_duration, parse_moment, parse_when
from worker.errors import ArgumentsError, SettingsError

NOW = 1_800_000_000_000  # ms
HOUR = 3_600_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("earliest", When("earliest", "earliest")),
        ("latest", When("latest", "latest")),
        ("now", When("latest", "now")),
        ("committed", When("committed", "committed")),
        ("1500", When("offset", "1500", offset=1500)),
        ("0:15,3:0", When("offsets", "0:15,3:0", offsets={0: 15, 3: 0})),
        ("2h", When("time", "2h", time_ms=NOW - 2 * HOUR)),
        ("1d12h", When("time", "1d12h", time_ms=NOW - 36 * HOUR)),
        ("0.5h", When("time", "0.5h", time_ms=NOW - HOUR // 2)),
        ("90s", When("time", "90s", time_ms=NOW - 90_000)),
        ("5000w", When("time", "5000w", time_ms=0)),  # before the first record of Kafka
        ("1970-01-02", When("time", "1970-01-02", time_ms=24 * HOUR)),
        ("1970-01-01T01:00", When("time", "1970-01-01T01:00", time_ms=HOUR)),  # UTC
        ("1970-01-01T03:00+02:00", When("time", "1970-01-01T03:00+02:00", time_ms=HOUR)),
        ("1970-01-01T01:00:00.5Z", When("time", "1970-01-01T01:00:00.5Z", time_ms=HOUR + 500)),
    ],
)
def test_a_place_has_one_of_these_forms(text: str, expected: When) -> None:
    assert parse_when(text, NOW) == expected


@pytest.mark.parametrize("text", ["", "yesterday", "-5", "2x", "1:2,", "0:1 1:2", "\u0662h", "٢"])
def test_another_text_is_refused_with_the_forms(text: str) -> None:
    with pytest.raises(SettingsError, match="is no place in a topic: use earliest, latest"):
        parse_when(text, NOW)


def test_a_time_before_all_records_is_refused() -> None:
    with pytest.raises(SettingsError, match="is before 1970, and no record of Kafka can be older"):
        parse_when("1969-12-31T23:59:59Z", NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("now", NOW), ("2h", NOW - 2 * HOUR), ("5000w", 0), ("1970-01-01T01:00", HOUR)],
)
def test_a_moment_is_a_time_or_a_duration_ago(text: str, expected: int) -> None:
    assert parse_moment("--since", text, NOW) == expected


@pytest.mark.parametrize(
    "text", ["", "yesterday", "7", "earliest", "latest", "committed", "0:7", "1x", "9" * 400 + "w"]
)
def test_a_place_that_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(
        ArgumentsError, match=f"--since {text}: use a time such as .* a duration ago"
    ):
        parse_moment("--since", text, NOW)


@pytest.mark.parametrize(
    ("text", "expected"), [("90m", HOUR * 3 // 2), ("1d12h", 36 * HOUR), ("0.5h", HOUR // 2)]
)
def test_a_duration_has_units(text: str, expected: int) -> None:
    assert parse_duration("--within", text) == expected


@pytest.mark.parametrize("text", ["", "1x", "now", "7", "-1d", "2026-01-31T12:00", "2100-01-01"])
def test_a_time_is_no_duration(text: str) -> None:
    with pytest.raises(ArgumentsError, match=f"--within {text}: use a duration such as 90m"):
        parse_duration("--within", text)


def test_a_range_is_named_as_it_was_given() -> None:
    assert Span(parse_when("2h", NOW), parse_when("now", NOW)).text == "2h..now"


@pytest.mark.parametrize(
    ("start", "end", "moves"),
    [
        ("7d", "1500", True),
        ("1500", "now", True),
        ("earliest", "latest", True),
        ("0:1", "committed", True),
        ("earliest", "2026-01-31", False),
        ("0:1", "1500", False),
    ],
)
def test_some_places_are_elsewhere_later(start: str, end: str, *, moves: bool) -> None:
    assert Span(parse_when(start, NOW), parse_when(end, NOW)).moves is moves


def test_the_name_of_a_long_range_is_short_and_its_own() -> None:
    """It is part of the metadata of an offset, which Kafka limits to 4,096 bytes."""
    many = [
        Span(parse_when(",".join(f"{number}:{at}" for number in range(500)), NOW), When("time", ""))
        for at in (1, 2)
    ]
    names = [span.name for span in many]
    assert [name[:40] for name in names] == [span.text[:40] for span in many]
    assert {len(name) for name in names} == {57}
    assert len({name[40:] for name in names}) == 2
    assert Span(parse_when("2h", NOW), parse_when("now", NOW)).name == "2h..now"


def test_a_partition_that_is_not_there_is_named() -> None:
    parse_when("0:1,1:2", NOW).require([0, 1, 2])
    parse_when("5", NOW).require([])
    with pytest.raises(SettingsError, match="0:1,7:2: the input has no partition 7"):
        parse_when("0:1,7:2", NOW).require([0, 1])


@pytest.mark.parametrize(
    ("start", "end", "ordered"),
    [
        ("earliest", "latest", True),
        ("7", "8", True),
        ("2h", "1h", True),
        ("7", "2h", True),  # only the topic knows
        ("7", "7", False),
        ("1h", "2h", False),
        ("latest", "9", False),
        ("committed", "earliest", False),
    ],
)
def test_a_range_that_can_have_no_record_is_refused(start: str, end: str, *, ordered: bool) -> None:
    span = Span(parse_when(start, NOW), parse_when(end, NOW))
    if ordered:
        span.require_order()
    else:
        with pytest.raises(ArgumentsError, match=f"between --from {start} and --to {end}"):
            span.require_order()
