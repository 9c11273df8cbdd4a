"""A result of several models, in every format and mode."""

from __future__ import annotations

import io
import json
from collections import defaultdict
from dataclasses import replace
from typing import Any

import fastavro
import pytest
from jsonschema import Draft7Validator

from schemas.avro import avro_schema
from schemas.classifications import Classifications
from schemas.forms import SEVERAL
from tests.support.panels import panel_settings, rule_card
from tests.support.records import CARD, item
from worker.core.absences import Absence, Part
from worker.core.decisions.rules import bind, decision
from worker.core.encoder import Encoder
from worker.core.formats.plain_json import JsonResults
from worker.core.records import Classified, Frame, ModelCard, Prediction
from worker.core.topic_limits import TopicLimits
from worker.registry.enriched_avro import enriched_avro
from worker.registry.enriched_json import enriched_json
from worker.registry.results import FORMATS, result_message
from worker.registry.schema import RegisteredSchema
from worker.settings import DecisionSettings, OutputSettings, result_form

TONE = rule_card("tone", "BAD", "GOOD")
LANGUAGE = rule_card("language", "de", "en")
SET = replace(TONE, name="tone+language", members=(("tone", TONE), ("language", LANGUAGE)))
SAYS = Part(Prediction((0.25, 0.75), 5, truncated=False), TONE)


def both(tone: Part | Absence = SAYS, *, truncated: bool = False) -> Classified:
    language = Part(Prediction((0.125, 0.875), 4, truncated=truncated), LANGUAGE)
    prediction = tone.prediction if isinstance(tone, Part) else Prediction((), 0, truncated=False)
    one = replace(item(7, "hi"), payload={"text": "hi"})
    return Classified(one, prediction, SET, {"tone": tone, "language": language})


def encoder(mode: str = "classification", results: Any = None) -> Encoder:
    return Encoder(
        OutputSettings(mode=mode),  # type: ignore[arg-type]
        version="1",
        limits=defaultdict(TopicLimits),
        results=results or JsonResults(SEVERAL),
    )


def test_each_model_has_its_result_by_its_name() -> None:
    encoded = encoder().encode(both(truncated=True), now_ms=0, now=0.0)
    found = Classifications.model_validate_json(encoded.value or b"")
    tone = found.classifications["tone"]
    language = found.classifications["language"]
    assert tone is not None
    assert language is not None
    assert (tone.label, tone.score, tone.model.name) == ("GOOD", 0.75, "tone")
    assert (language.label, language.token_count, language.truncated) == ("en", 4, True)
    assert found.absences == {}
    assert (encoded.label, encoded.score, encoded.truncated) == ("GOOD", 0.75, True)
    assert encoded.model is SET


def test_a_model_that_says_nothing_is_null_with_its_reason() -> None:
    encoded = encoder().encode(both(Absence("model_failed")), now_ms=0, now=0.0)
    document = json.loads(encoded.value or b"")
    assert document["classifications"]["tone"] is None
    assert document["absences"] == {"tone": "model_failed"}
    assert (encoded.label, encoded.score, encoded.decided) == ("", 0.0, ())
    assert not encoded.uncertain
    assert not encoded.truncated


def test_enriching_adds_the_same_document() -> None:
    encoded = encoder("enrich").encode(both(), now_ms=0, now=0.0)
    document = json.loads(encoded.value or b"")
    assert document["text"] == "hi"
    assert document["classification"]["classifications"]["language"]["label"] == "en"


def test_the_id_is_of_the_record_and_of_all_models() -> None:
    def id_of(card: ModelCard) -> str:
        outcome = replace(both(), model=card)
        return str(json.loads(encoder().encode(outcome, now_ms=0, now=0.0).value or b"")["id"])

    assert id_of(SET) == id_of(SET)
    assert id_of(SET) != id_of(replace(SET, weights_sha256="cd" * 32))


def results(format_: str) -> Any:
    made = FORMATS[format_](form=SEVERAL)
    made.add("texts.labelled")
    return made


@pytest.mark.parametrize("tone", [SAYS, Absence("skipped")])
def test_avro_readers_get_what_json_readers_get(tone: Part | Absence) -> None:
    encoded = encoder(results=results("avro")).encode(both(tone), now_ms=0, now=0.0)
    plain = json.loads(encoder().encode(both(tone), now_ms=0, now=0.0).value or b"")
    schema = fastavro.parse_schema(avro_schema(Classifications))
    read: Any = fastavro.schemaless_reader(io.BytesIO((encoded.value or b"")[5:]), schema, None)
    for name, one in plain["classifications"].items():
        found = read["classifications"][name]
        assert (found and {k: v for k, v in found.items() if v is not None}) == one
    assert read["absences"] == plain["absences"]


def test_protobuf_leaves_out_a_model_that_says_nothing() -> None:
    encoded = encoder(results=results("protobuf")).encode(
        both(Absence("skipped")), now_ms=0, now=0.0
    )
    read = result_message(SEVERAL).FromString((encoded.value or b"")[6:])
    assert set(read.classifications) == {"language"}
    assert read.classifications["language"].label == "en"
    assert dict(read.absences) == {"tone": "skipped"}


def test_the_size_of_a_result_counts_every_model() -> None:
    least, usual = encoder().sizes(SET)
    alone, _ = Encoder(OutputSettings(), version="1", limits=defaultdict(TopicLimits)).sizes(TONE)
    assert usual > least > alone


def test_a_decision_of_one_model_is_in_its_part() -> None:
    rule = decision(DecisionSettings(threshold=0.5, min_score=0.9))
    assert rule is not None
    card = replace(TONE, decision=bind(rule, TONE.labels, TONE.activation))
    outcome = both(replace(SAYS, card=card))
    outcome = replace(outcome, model=replace(SET, members=(("tone", card), SET.members[1])))
    encoded = encoder().encode(outcome, now_ms=0, now=0.0)
    tone = json.loads(encoded.value or b"")["classifications"]["tone"]
    assert (tone["label"], tone["decided"]) == ("UNCERTAIN", ["GOOD"])
    assert (encoded.label, encoded.decided, encoded.uncertain) == ("UNCERTAIN", ("GOOD",), True)


def test_the_form_of_results_follows_the_settings() -> None:
    assert result_form(panel_settings('{tone = {name = "x"}}')) is SEVERAL
    assert CARD.members == ()


def test_an_enriched_avro_record_is_read_with_its_enriched_schema() -> None:
    """The record contains itself, so its schema is written anew."""
    post = {
        "type": "record",
        "name": "Post",
        "fields": [
            {"name": "text", "type": "string"},
            {"name": "next", "type": ["null", "Post"], "default": None},
        ],
    }
    body = io.BytesIO()
    schema: Any = fastavro.parse_schema(json.loads(json.dumps(post)))
    fastavro.schemaless_writer(body, schema, {"text": "hi", "next": None})
    outcome = both(Absence("skipped"))
    record = replace(outcome.item.record, value=b"\0\0\0\0\1" + body.getvalue())
    one = replace(outcome.item, record=record, frame=Frame(5, b"\0\0\0\0\2"))
    encoded = encoder("enrich", results("avro")).encode(
        replace(outcome, item=one), now_ms=0, now=0.0
    )
    text = enriched_avro(RegisteredSchema("AVRO", json.dumps(post)), SEVERAL)
    parsed: Any = fastavro.parse_schema(json.loads(text))
    read: Any = fastavro.schemaless_reader(io.BytesIO((encoded.value or b"")[5:]), parsed, None)
    said = read["classification"]
    assert (read["text"], said["classifications"]["tone"]) == ("hi", None)
    assert said["classifications"]["language"]["label"] == "en"
    assert said["absences"] == {"tone": "skipped"}


def test_an_enriched_json_schema_accepts_what_is_added() -> None:
    closed = {"type": "object", "properties": {"text": {}}, "additionalProperties": False}
    schema = enriched_json(RegisteredSchema("JSON", json.dumps(closed)), SEVERAL)
    check = Draft7Validator(json.loads(schema))
    encoded = encoder("enrich").encode(both(Absence("skipped")), now_ms=0, now=0.0)
    document = json.loads(encoded.value or b"")
    found = {"text": "hi", "classification": document["classification"]}
    check.validate(found)
    found["classification"]["classifications"]["language"]["score"] = 3
    assert not check.is_valid(found)
