"""Results with decisions: the same in every format, and rounded only where they are shown."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from fastavro import parse_schema, schemaless_reader

from schemas import DecidedClassification
from schemas.forms import DECIDED
from tests.support.records import CARD, raw
from worker.core.decisions.rules import bind, decision
from worker.core.decisions.windows import WindowPlan
from worker.core.encoder import Encoder, result_id
from worker.core.formats.format import ResultFormat
from worker.core.formats.plain_json import JsonResults
from worker.core.records import Classified, Encoded, Frame, ModelCard, Prediction, WorkItem
from worker.core.topic_limits import TopicLimits
from worker.registry.results import AvroResults, JsonSchemaResults, ProtobufResults, result_message
from worker.settings import DecisionSettings, OutputSettings

EMOTIONS = ("joy", "anger", "fear")
P = (0.123456, 0.8, 0.6)


def card(**options: Any) -> ModelCard:
    model = replace(CARD, labels=EMOTIONS, activation="sigmoid")
    rule = decision(DecisionSettings(**options))
    return replace(model, decision=bind(rule, model.labels, model.activation) if rule else None)


def encoded(
    model: ModelCard,
    prediction: Prediction = Prediction(P, 7, truncated=False),  # noqa: B008 - it is frozen
    results: ResultFormat | None = None,
    mode: str = "classification",
) -> Encoded:
    settings = OutputSettings(topic="out", mode=mode)  # type: ignore[arg-type]
    encoder = Encoder(settings, version="", limits=defaultdict(TopicLimits), results=results)
    item = WorkItem(raw(4, b'{"text":"hi"}'), "hi", None, {"text": "hi"}, Frame(0))
    return encoder.encode(Classified(item, prediction, model), now_ms=1000, now=0.5)


def document(model: ModelCard, *arguments: Any) -> dict[str, Any]:
    value = encoded(model, *arguments).value or b""
    DecidedClassification.model_validate_json(value)
    found: dict[str, Any] = json.loads(value)
    return found


MORE = {"prepared", "temperature", "decided", "windows", "total_tokens"}


def test_a_result_has_the_members_whose_features_are_on() -> None:
    assert document(card()).keys().isdisjoint(MORE)
    assert document(card(digits=3)).keys().isdisjoint(MORE)
    assert document(card(threshold=0.6))["decided"] == ["anger", "fear"]
    assert document(card(threshold=0.9))["decided"] == []
    assert document(card(temperature=2.0))["temperature"] == 2.0
    assert document(replace(card(), recipe="nfc"))["prepared"] == "nfc"
    in_windows = replace(card(), windows=WindowPlan(16, 8, "mean"))
    read = Prediction(P, 700, truncated=True, windows=2, total_tokens=900)
    found = document(in_windows, read)
    assert (found["windows"], found["total_tokens"], found["truncated"]) == (2, 900, True)


def test_probabilities_are_rounded_only_in_the_result() -> None:
    one = encoded(card(digits=2, top_k=2, threshold=0.8))
    found = json.loads(one.value or b"")
    assert found["labels"] == [{"label": "anger", "score": 0.8}, {"label": "fear", "score": 0.6}]
    assert document(card(digits=2))["labels"][0] == {"label": "joy", "score": 0.12}
    assert (one.label, one.score, one.decided) == ("anger", 0.8, ("anger",))


def test_an_uncertain_result_keeps_its_probabilities() -> None:
    one = encoded(card(min_score=0.9, uncertain_label="?"))
    found = json.loads(one.value or b"")
    assert (one.label, found["label"], found["score"]) == ("?", "?", 0.8)
    assert [label["score"] for label in found["labels"]] == list(P)


def test_the_id_of_a_result_knows_the_decision() -> None:
    plain, decided = document(card()), document(card(threshold=0.6))
    assert plain["id"] == result_id(raw(4), CARD.weights_sha256)
    assert len({plain["id"], decided["id"], document(card(threshold=0.7))["id"]}) == 3


FULL: dict[str, Any] = {"threshold": 0.6, "temperature": 2.0, "top_k": 1}


@pytest.mark.parametrize("options", [FULL, {"digits": 2}])
def test_every_format_has_the_same_members(options: dict[str, Any]) -> None:
    model = card(**options)
    expected = document(model)
    absent = dict.fromkeys(MORE)
    avro, json_schema, protobuf = (
        kind(form=DECIDED) for kind in (AvroResults, JsonSchemaResults, ProtobufResults)
    )
    for results in (avro, json_schema, protobuf):
        results.add("out")
    body = io.BytesIO((encoded(model, results=avro).value or b"")[5:])
    read: Any = schemaless_reader(body, parse_schema(json.loads(avro.schema.text)), None)
    assert {name: read[name] for name in MORE} == {name: (absent | expected)[name] for name in MORE}
    assert json.loads((encoded(model, results=json_schema).value or b"")[5:]) == expected
    value = (encoded(model, results=protobuf).value or b"")[6:]
    message = result_message(DECIDED).FromString(value)
    assert list(message.decided) == expected.get("decided", [])
    assert message.HasField("temperature") == ("temperature" in expected)
    assert not message.HasField("windows")


def test_an_enriched_record_has_the_same_result() -> None:
    model = card(**FULL)
    value = encoded(model, mode="enrich", results=JsonResults(DECIDED)).value or b""
    assert json.loads(value) == {"text": "hi", "classification": document(model)}


def test_a_smaller_form_is_known_before_the_first_result() -> None:
    encoder = Encoder(
        OutputSettings(topic="out"), version="", limits=defaultdict(TopicLimits), results=None
    )
    assert encoder.sizes(card(top_k=1)) < encoder.sizes(card())
