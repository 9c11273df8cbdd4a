"""The headers that tell how a record was routed, so that an audit reads no value.

* A result whose topic or copies a route chose, and a note with copies beside it:
  `streamlabel-route`, a `RouteNote`.
* A copy of a result: `streamlabel-copy`, the name of its route. It has the source, the replay and
  the group of its result, and no `streamlabel-route`.
* The note of a filtered record: `streamlabel-filtered`, a `FilteredNote`, beside its source, and
  its replay and group where the record has them. It has the record's key and no value.

Every record has exactly one main outcome: a result, a dead letter or a note. It announces its
copies, so that a missing one is found. A copy that its topic refused may be told in the dead-letter
topic: that record has `streamlabel-copy` beside the header of a dead letter.

Owns: these headers and their formats.
Thread: any; pure functions.
Must not import: any other module of the worker.
"""

from __future__ import annotations

import json
from typing import NamedTuple

ROUTE_HEADER = "streamlabel-route"
COPY_HEADER = "streamlabel-copy"
FILTERED_HEADER = "streamlabel-filtered"

_LONGEST = 64_000  # bytes; a name of a topic has 249 at most


class CopyNote(NamedTuple):
    """A copy that an outcome announces: the route that asked for it, and its topic."""

    route: str
    topic: str


class RouteNote(NamedTuple):
    """The routes that a main outcome took.

    Attributes:
        route: name of the route that chose its topic; empty for the topic of `output.topic`.
        copies: the copies beside it.
    """

    route: str = ""
    copies: tuple[CopyNote, ...] = ()

    @property
    def header(self) -> tuple[str, bytes]:
        """The header of the outcome."""
        copies = dict(self.copies)
        document = {"route": self.route} | ({"copies": copies} if copies else {})
        return ROUTE_HEADER, json.dumps(document, separators=(",", ":")).encode()


class FilteredNote(NamedTuple):
    """The reason why a record has no result.

    Attributes:
        reason: `route` for a route with `drop`, `prepare.function` for a skip of the own function.
        route: name of the route; empty for a skip.
        settings: digest of the settings that decided.
        timestamp_ms: of the input record; a topic of an older time may have had the same name.
    """

    reason: str
    route: str
    settings: str
    timestamp_ms: int

    @property
    def header(self) -> tuple[str, bytes]:
        """The header of the note; the timestamp is its last member, as in a dead letter."""
        return FILTERED_HEADER, json.dumps(self._asdict(), separators=(",", ":")).encode()

    @property
    def words(self) -> str:
        """The reason, as counts show it: with the name of the route, if there is one."""
        return f"{self.reason} {self.route}" if self.route else self.reason


def parse_route(value: bytes | None) -> RouteNote:
    """Return the note of an outcome; an empty one if the value has another form."""
    document = _document(value)
    route, copies = document.get("route"), document.get("copies", {})
    if not isinstance(route, str) or not isinstance(copies, dict):
        return RouteNote()
    named = [CopyNote(name, topic) for name, topic in copies.items() if isinstance(topic, str)]
    return RouteNote(route, tuple(named))


def parse_filtered(value: bytes | None) -> FilteredNote:
    """Return the note of a filtered record; with the reason `unknown` for another form."""
    document = _document(value)
    names = [document.get(name) for name in FilteredNote._fields[:3]]
    reason, route, settings = (name if isinstance(name, str) else "" for name in names)
    timestamp_ms = document.get("timestamp_ms")
    at = timestamp_ms if type(timestamp_ms) is int else 0
    return FilteredNote(reason or "unknown", route, settings, at)


def _document(value: bytes | None) -> dict[str, object]:
    if value is None or len(value) > _LONGEST:
        return {}
    try:
        document = json.loads(value)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}
