"""Routes on a broker: each record has one outcome in its own topic, and the copies asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from kafka import KafkaAdminClient

from tests.conftest import Broker, Topics
from tests.support.workers import (
    ObedientModel,
    alter,
    needs_kafka,
    produce,
    read,
    running,
    wait_until,
)
from worker.core.coordinates import SOURCE_HEADER
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.records import ModelInput, Prediction
from worker.core.route_headers import (
    COPY_HEADER,
    FILTERED_HEADER,
    ROUTE_HEADER,
    parse_filtered,
    parse_route,
)

pytestmark = pytest.mark.integration

BOTH = pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
NUMBER = 90


class ByText(ObedientModel):
    """Labels a text with "bad" in it NEGATIVE, and is sure of it."""

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        given = ["".join(map(chr, ids)) for ids in model_input.ids]
        self.on_predict(given)
        return [
            Prediction((0.9, 0.1) if "bad" in text else (0.25, 0.75), len(text), truncated=False)
            for text in given
        ]


class Site:
    """The topics of a test with routes, and what is in them."""

    def __init__(self, broker: Broker, topics: Topics) -> None:
        self.broker, self.topics = broker, topics
        self.notes, self.spam = f"{topics.output}.filtered", f"{topics.output}.all"

    @property
    def settings(self) -> dict[str, Any]:
        """Settings: negative texts by label, a copy of those in English, and spam dropped."""
        routes = [
            {"name": "english", "path": "lang", "in": ["en"], "topic": self.spam, "also": True},
            {"name": "spam", "path": "kind", "in": ["spam"], "drop": True},
            {
                "name": "angry",
                "label": ["NEGATIVE"],
                "min_score": 0.8,
                "topic": f"{self.topics.output}.{{label}}",
            },
        ]
        return {"routes": routes, "output__filtered_topic": self.notes, "create_topics": True}

    def read(self, name: str) -> list[Any]:
        return read(self.broker, name, self.topics.partitions)

    def produce(self, start: int = 0, number: int = NUMBER) -> None:
        records = []
        for n in range(start, start + number):
            fields: dict[str, Any] = {"id": n, "text": f"{'bad' if n % 3 == 0 else 'good'} {n}"}
            fields |= {"lang": "en" if n % 2 == 0 else "de"} if n % 5 else {}
            fields |= {"kind": "spam"} if n % 7 == 0 else {}
            records.append((f"author-{n % 7}".encode(), json.dumps(fields).encode()))
        produce(self.broker, self.topics.input, records)

    def outcomes(self) -> dict[str, list[Any]]:
        names = {"main": self.topics.output, "angry": f"{self.topics.output}.NEGATIVE"}
        names |= {"notes": self.notes, "copies": self.spam, "dead": self.topics.dead}
        return {short: self.read(name) for short, name in names.items()}

    def finished(self, number: int = NUMBER) -> Callable[[], bool]:
        def done() -> bool:
            found = self.outcomes()
            return sum(len(found[kind]) for kind in ("main", "angry", "notes")) >= number

        return done


def numbers(records: list[Any]) -> list[int]:
    return [json.loads(record.value)["source"]["offset"] for record in records]


def sources(records: list[Any]) -> list[str]:
    return [dict(record.headers)[SOURCE_HEADER].decode() for record in records]


@BOTH
def test_each_record_goes_where_its_label_and_its_fields_say(
    broker: Broker, topics: Topics, delivery: str
) -> None:
    site = Site(broker, topics)
    site.produce()
    with running(broker, topics, ByText(), delivery=delivery, **site.settings) as worker:
        wait_until(site.finished(), what="all have an outcome")
        wait_until(
            lambda: (
                worker.value("streamlabel_routed_total", route="angry") == 25
                and worker.value("streamlabel_filtered_total", reason="route", route="spam") == 13
                and worker.value("streamlabel_copies_total", route="english") == 36
                and worker.value("streamlabel_path_missing_total", path="lang") == 18
            ),
            what="all are counted",
        )
    found = site.outcomes()
    ids = {
        kind: sorted(json.loads(r.value)["message_id"] for r in found[kind])
        for kind in ("main", "angry", "copies")
    }
    expected = {str(n): n for n in range(NUMBER)}
    spam = {n for n in range(NUMBER) if n % 7 == 0}
    angry = {n for n in range(NUMBER) if n % 3 == 0} - spam
    english = {n for n in range(NUMBER) if n % 5 and n % 2 == 0}
    assert {expected[i] for i in ids["angry"]} == angry
    assert {expected[i] for i in ids["main"]} == set(range(NUMBER)) - angry - spam
    assert {expected[i] for i in ids["copies"]} == english
    assert [len(set(sources(found[kind]))) for kind in found] == [len(found[k]) for k in found]
    assert not found["dead"]
    for note in found["notes"]:
        assert note.value is None
        assert note.key is not None
        filtered = parse_filtered(dict(note.headers)[FILTERED_HEADER])
        assert (filtered.reason, filtered.route, len(filtered.settings)) == ("route", "spam", 16)
    for record in found["angry"]:
        route = parse_route(dict(record.headers)[ROUTE_HEADER])
        assert route.route == "angry"
        assert [copy.topic for copy in route.copies] in ([], [site.spam])
    for record in found["copies"]:
        headers = dict(record.headers)
        assert headers[COPY_HEADER] == b"english"
        assert ROUTE_HEADER not in headers
    for kind in ("main", "angry", "copies"):
        for partition in range(topics.partitions):
            order = numbers([r for r in found[kind] if r.partition == partition])
            assert order == sorted(order)


@BOTH
def test_a_copy_that_its_topic_refuses_is_told_in_the_dead_letter_topic(
    broker: Broker, topics: Topics, admin: KafkaAdminClient, delivery: str
) -> None:
    """The record keeps its result. A compacted topic refuses copies without a key."""
    needs_kafka(broker, "takes any record")
    site = Site(broker, topics)
    with running(broker, topics, ByText(), delivery=delivery, **site.settings) as worker:
        wait_until(lambda: worker.progress.ready()[0], what="the topics are there")
        alter(admin, site.spam, cleanup_policy="compact")
        records = [
            (b"k" if n != 10 else None, json.dumps({"text": f"good {n}", "lang": "en"}).encode())
            for n in range(20)
        ]
        produce(broker, topics.input, records)
        wait_until(lambda: worker.published == 20, what="all have results")
        assert worker.value("streamlabel_copies_lost_total", route="english") == 1
    found = site.outcomes()
    assert len(found["main"]) == 20
    assert len(found["copies"]) == 19
    (dead,) = found["dead"]
    headers = dict(dead.headers)
    assert headers[COPY_HEADER] == b"english"
    assert json.loads(headers[DEAD_LETTER_HEADER])["reason"] == "result_refused"


@BOTH
def test_a_topic_that_is_missing_is_named_with_the_command_that_creates_it(
    broker: Broker, topics: Topics, delivery: str
) -> None:
    site = Site(broker, topics)
    options = site.settings | {"create_topics": False}
    with running(broker, topics, ByText(), delivery=delivery, **options) as worker:
        worker.join()
    message = str(worker.error)
    assert f"{topics.output}.NEGATIVE" in message
    assert "streamlabel topics create" in message
    assert "--routes '[" in message
