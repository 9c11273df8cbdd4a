"""Reads the places in a log that a person names: `earliest`, `2h`, `2026-01-31T12:00Z`, `0:1500`.

Owns: the grammar of these places, and of moments and durations.
Thread: any; pure.
Must not import: anything but errors.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from worker.errors import ArgumentsError

WhenKind = Literal["earliest", "latest", "committed", "time", "offset", "offsets"]

_NAMES: Mapping[str, WhenKind] = {
    "earliest": "earliest",
    "latest": "latest",
    "now": "latest",
    "committed": "committed",
}
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d+)?[smhdw])+", re.ASCII)
_PART = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
_OFFSETS = re.compile(r"\d+:\d+(?:,\d+:\d+)*", re.ASCII)

_LONGEST_NAME, _BEGINNING = 60, 40  # characters

_TIME = "a time such as 2026-01-31T12:00 (UTC without an offset)"
_AGO = "a duration ago such as 90m, 2h or 7d"
FORMS = (
    f"earliest, latest (or now), committed (where the worker's group is), {_TIME}, {_AGO}, an offset "
    "such as 1500, or PARTITION:OFFSET,PARTITION:OFFSET"
)
MOMENTS = f"{_TIME}, {_AGO}, or now"


@dataclass(frozen=True, slots=True)
class When:
    """A place in the log of each partition.

    Attributes:
        kind: how the place is named.
        text: as it was given.
        time_ms: the first record at or after it, ms since 1970 UTC.
        offset: the same in each partition.
        offsets: by the partition's number.
    """

    kind: WhenKind
    text: str
    time_ms: int = 0
    offset: int = 0
    offsets: Mapping[int, int] | None = None

    @property
    def moves(self) -> bool:
        """True if the text means another place later: a duration, an end, a group's position."""
        return self.kind in {"latest", "committed"} or bool(_DURATION.fullmatch(self.text))

    def require(self, numbers: Collection[int]) -> None:
        """Return if each partition that the place names is one of these.

        Raises:
            ArgumentsError: names the others.
        """
        if unknown := sorted(set(self.offsets or ()) - set(numbers)):
            names = ", ".join(map(str, unknown))
            raise ArgumentsError(f"{self.text}: the input has no partition {names}")


@dataclass(frozen=True, slots=True)
class Span:
    """The records that a worker is to label: from `start` up to, but not including, `end`.

    Attributes:
        group: the group that `committed` refers to.
        rate: most records a second of one worker; None for no limit.
        at_ms: when the places were read, ms since 1970 UTC; 0 if unknown.
    """

    start: When
    end: When
    group: str = ""
    rate: float | None = None
    at_ms: int = 0

    @property
    def text(self) -> str:
        """The range as it was given."""
        return f"{self.start.text}..{self.end.text}"

    @property
    def moves(self) -> bool:
        """True if the text means another range later."""
        return self.start.moves or self.end.moves

    def require_order(self) -> None:
        """Return if records may lie between the two places.

        Raises:
            ArgumentsError: the start is not before the end, whatever the topic has.
        """
        start, end = self.start, self.end
        backwards = start.kind == end.kind and (
            (start.kind == "offset" and start.offset >= end.offset)
            or (start.kind == "time" and start.time_ms >= end.time_ms)
        )
        if backwards or start.kind == "latest" or end.kind == "earliest":
            raise ArgumentsError(
                f"no record lies between --from {start.text} and --to {end.text}: --from is the "
                "first record, and --to the first one that is left out"
            )

    @property
    def name(self) -> str:
        """The text; the beginning and a hash of a long one.

        Kafka limits an offset's metadata, which name the range, to 4,096 bytes
        (`offset.metadata.max.bytes`), and a list of offsets may be longer.
        """
        if len(self.text) <= _LONGEST_NAME:
            return self.text
        return f"{self.text[:_BEGINNING]}~{hashlib.sha256(self.text.encode()).hexdigest()[:16]}"


def parse_when(text: str, now_ms: int) -> When:
    """Read a place.

    Args:
        text: one of `FORMS`.
        now_ms: the present, ms since 1970 UTC.

    Raises:
        ArgumentsError: the text has none of the forms.
    """
    if kind := _NAMES.get(text):
        return When(kind, text)
    if text.isascii() and text.isdigit():
        return When("offset", text, offset=int(text))
    if _OFFSETS.fullmatch(text):
        pairs = [pair.split(":") for pair in text.split(",")]
        return When("offsets", text, offsets={int(number): int(at) for number, at in pairs})
    wrong = f"{text!r} is no place in a topic: use {FORMS}"
    return When("time", text, time_ms=_time_ms(text, now_ms, wrong))


def parse_moment(flag: str, text: str, now_ms: int) -> int:
    """Read a point in time, one of `MOMENTS`; return it in ms since 1970 UTC.

    Args:
        flag: the argument that has it.
        text: what was given.
        now_ms: the present, ms since 1970 UTC.

    Raises:
        ArgumentsError: the text has none of the forms.
    """
    if text == "now":
        return now_ms
    wrong = f"{flag} {text}: use {MOMENTS}"
    if text.isdigit():  # a date without hyphens looks like an offset
        raise ArgumentsError(wrong)
    return _time_ms(text, now_ms, wrong)


def parse_duration(flag: str, text: str) -> int:
    """Read a duration such as `90m`, and return it in ms.

    Args:
        flag: the argument that has it.
        text: what was given.

    Raises:
        ArgumentsError: the text has another form.
    """
    if not _DURATION.fullmatch(text):
        raise ArgumentsError(f"{flag} {text}: use a duration such as 90m, 7d or 1d12h")
    parts = _PART.findall(text)
    return round(sum(float(number) * _UNITS_MS[unit] for number, unit in parts))


def _time_ms(text: str, now_ms: int, wrong: str) -> int:
    if _DURATION.fullmatch(text):
        return max(0, now_ms - parse_duration("", text))
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise ArgumentsError(wrong) from None
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    if (time_ms := round(time.timestamp() * 1000)) < 0:
        raise ArgumentsError(f"{text!r} is before 1970, and no record of Kafka can be older")
    return time_ms
