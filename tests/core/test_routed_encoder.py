"""RoutedEncoder: results, copies and notes for the topics that routes choose."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from schemas.dead_letter import DeadLetterReason
from tests.core.decisions.test_routes import classified, settings_of
from tests.support.records import CARD, invalid, raw
from worker.core.coordinates import GROUP_HEADER
from worker.core.decisions.routes import Router
from worker.core.encoder import DEAD_LETTER_HEADER, Encoder
from worker.core.records import Classified, DeadLettered, Encoded, Filtered, Outcome, WorkItem
from worker.core.replacement import OutcomeReplacer
from worker.core.replay import REPLAY_HEADER
from worker.core.route_headers import (
    COPY_HEADER,
    FILTERED_HEADER,
    ROUTE_HEADER,
    CopyNote,
    RouteNote,
    parse_filtered,
    parse_route,
)
from worker.core.routed_encoder import RoutedEncoder
from worker.core.topic_limits import Refusal, TopicLimits

NOW = 1_700_000_500_000
COPY = {"name": "all", "topic": "copies", "also": True}
ANGRY = {"name": "angry", "label": "NEGATIVE", "topic": "angry"}
SPAM = {"name": "spam", "path": "kind", "in": "spam", "drop": True}


class Desk:
    """An encoder with routes, and a replacer with the same limits."""

    def __init__(self, *routes: dict[str, Any], **limits: TopicLimits) -> None:
        self.settings = settings_of(*routes)
        names = ("texts.labelled", "texts.dead", "notes", "copies", "angry")
        self.limits = {name: TopicLimits() for name in names} | limits
        router = Router(self.settings.routes, self.settings.output.topic)
        self.encoder = RoutedEncoder(
            self.settings.output, version="1", limits=self.limits, router=router
        )
        self.replace = OutcomeReplacer(self.encoder, self.limits, lambda: NOW).replace

    def encode(self, *outcomes: Outcome) -> list[Encoded]:
        return self.encoder.encode_batch(outcomes, now_ms=NOW, now=0.0)


def negative(**payload: Any) -> Classified:
    return classified(0.9, 0.1, **payload)


def test_what_no_route_matches_is_as_without_routes() -> None:
    desk, outcome = Desk(ANGRY), classified(0.1, 0.9)
    plain = Encoder(desk.settings.output, version="1", limits=desk.limits)
    dead = DeadLettered(raw(3), DeadLetterReason.NOT_UTF8, "not UTF-8")
    assert desk.encode(outcome, dead) == plain.encode_batch([outcome, dead], now_ms=NOW, now=0.0)


def test_a_result_names_its_route_and_announces_its_copies() -> None:
    main, copy = Desk(COPY, ANGRY).encode(negative())
    headers = dict(main.headers)
    assert (main.topic, main.route, main.copies, main.is_copy) == ("angry", "angry", 1, False)
    assert parse_route(headers[ROUTE_HEADER]) == RouteNote("angry", (CopyNote("all", "copies"),))
    assert (copy.topic, copy.route, copy.copies, copy.is_copy) == ("copies", "all", 0, True)
    assert dict(copy.headers)[COPY_HEADER] == b"all"
    assert ROUTE_HEADER not in dict(copy.headers)
    assert (copy.value, copy.key, copy.ref) == (main.value, main.key, main.ref)


def test_a_dropped_record_leaves_a_note_and_its_copies() -> None:
    card = replace(CARD, settings_digest="d1")
    note, copy = Desk(COPY, SPAM).encode(classified(0.9, 0.1, card=card, kind="spam"))
    assert (note.topic, note.value, note.key) == ("notes", None, None)
    assert (note.filtered, note.route, note.copies) == ("route", "spam", 1)
    assert not note.is_result
    assert copy.is_copy
    found = parse_filtered(dict(note.headers)[FILTERED_HEADER])
    assert found == ("route", "spam", "d1", note.happened_ms)
    assert found.words == "route spam"


def test_a_note_keeps_what_tells_a_replay_from_its_record() -> None:
    record = raw(1, headers=[(REPLAY_HEADER, b"r"), ("other", b"x"), (COPY_HEADER, b"old")])
    skipped = Filtered(WorkItem(record, "hi"), "prepare.function")
    (note,) = Desk(ANGRY).encode(skipped)
    names = [name for name, _ in note.headers]
    assert names == [REPLAY_HEADER, "streamlabel-source", FILTERED_HEADER]
    assert (note.filtered, note.route, skipped.words) == (
        "prepare.function",
        "",
        "prepare.function",
    )


def test_a_note_of_a_backfill_names_its_group() -> None:
    desk = Desk(ANGRY)
    encoder = Encoder(desk.settings.output, version="1", limits=desk.limits, group="g")
    skipped = Filtered(WorkItem(raw(1), "hi"), "prepare.function")
    note = encoder.encode(skipped, now_ms=NOW, now=0.0)
    assert dict(note.headers)[GROUP_HEADER] == b"g"


def test_a_copy_that_is_too_large_for_its_topic_is_told_as_a_dead_letter() -> None:
    main, lost = Desk(COPY, ANGRY, copies=TopicLimits(max_bytes=10)).encode(negative())
    assert (main.topic, main.copies) == ("angry", 1)
    assert (lost.topic, lost.is_copy, lost.route) == ("texts.dead", True, "all")
    assert lost.reason is DeadLetterReason.RESULT_TOO_LARGE
    assert dict(lost.headers)[COPY_HEADER] == b"all"


def test_a_result_that_is_too_large_has_no_copies() -> None:
    """A replay of its dead letter publishes them; else they would be there twice."""
    (dead,) = Desk(COPY, ANGRY, angry=TopicLimits(max_bytes=10)).encode(negative())
    assert (dead.topic, dead.copies, dead.is_copy) == ("texts.dead", 0, False)
    assert ROUTE_HEADER not in dict(dead.headers)
    (dead,) = Desk(COPY, SPAM, notes=TopicLimits(max_bytes=10)).encode(negative(kind="spam"))
    assert (dead.topic, dead.copies) == ("texts.dead", 0)
    assert ROUTE_HEADER not in dict(dead.headers)


def test_a_refused_copy_becomes_a_dead_letter_that_names_its_route() -> None:
    desk = Desk(COPY)
    main, copy = desk.encode(negative())
    lost = desk.replace(copy, Refusal("record", "no"))
    assert (lost.topic, lost.identity) == ("texts.dead", copy.identity)
    again = desk.replace(lost, Refusal("size", "too large"))
    assert (again.identity, dict(again.headers)[COPY_HEADER]) == (copy.identity, b"all")
    resent = desk.replace(lost, Refusal("timestamp", "too old"))
    assert [name for name, _ in resent.headers].count(COPY_HEADER) == 1
    dead = desk.replace(main, Refusal("record", "no"))
    assert (dead.topic, dead.copies, dead.is_copy) == ("texts.dead", 1, False)
    assert COPY_HEADER not in dict(dead.headers)
    assert desk.replace(copy, None) is copy


def test_a_refused_note_becomes_a_dead_letter_of_the_whole_record() -> None:
    desk = Desk(SPAM)
    (note,) = desk.encode(negative(kind="spam"))
    assert desk.replace(note, None) is note
    dead = desk.replace(note, Refusal("record", "cannot accept message without key"))
    assert (dead.topic, dead.value) == ("texts.dead", b'{"text":"hi"}')
    assert json.loads(dict(dead.headers)[DEAD_LETTER_HEADER] or b"")["reason"] == "result_refused"
    (at_once,) = desk.encode(negative(kind="spam"))
    assert at_once.topic == "texts.dead", "the topic's refusal is remembered"


def test_an_undecodable_record_is_a_dead_letter_without_a_route() -> None:
    bad = invalid(4)
    (dead,) = Desk(COPY).encode(DeadLettered(bad.record, bad.reason, bad.message))
    assert (dead.topic, dead.copies) == ("texts.dead", 0)
