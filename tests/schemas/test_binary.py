"""The Avro and Protobuf schemas: valid, of the models' members, and stable for their readers."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest
from avro.schema import parse as parse_avro
from fastavro import parse_schema
from grpc_tools import protoc
from pydantic import BaseModel

from schemas import Classification, export
from schemas.avro import avro_schema
from schemas.forms import DECIDED, FORMS, PLAIN, SEVERAL, ResultForm
from schemas.members import members
from schemas.protobuf import protobuf_file

AVSC = (export.FOLDER / "classification.avsc").read_text(encoding="utf-8")
# Readers have code with these numbers: a member is added at the end, and none is removed.
NUMBERS = {
    "Classification": [
        "id",
        "message_id",
        "label",
        "score",
        "labels",
        "token_count",
        "truncated",
        "source",
        "model",
        "processed_at",
        "processing_ms",
    ],
    "LabelScore": ["label", "score"],
    "SourceRef": ["topic", "partition", "offset", "timestamp_ms"],
    "ModelRef": ["name", "revision", "weights_sha256"],
}


MORE = ["prepared", "temperature", "decided", "windows", "total_tokens"]
SEVERAL_NUMBERS = {
    "Classifications": [
        "id",
        "message_id",
        "classifications",
        "absences",
        "source",
        "model",
        "processed_at",
        "processing_ms",
    ],
    "ModelClassification": [
        "label",
        "score",
        "labels",
        "token_count",
        "truncated",
        "model",
        *MORE,
    ],
}


class _Place(BaseModel):
    at: datetime


class _Trip(BaseModel):
    """A trip."""

    start: _Place
    end: _Place
    stops: list[_Place]
    legs: list[int]


class _Odd(BaseModel):
    either: int | str


def test_two_readers_of_avro_accept_the_schema() -> None:
    """A consumer needs this file alone."""
    assert parse_avro(AVSC).fullname == "streamlabel.Classification"
    assert parse_schema(json.loads(AVSC))["name"] == "streamlabel.Classification"


def test_a_decided_result_is_a_later_version_of_a_plain_one() -> None:
    """It has the same name, and only members that old values need not have."""
    plain, decided = (avro_schema(form.model) for form in (PLAIN, DECIDED))
    assert parse_avro(json.dumps(decided)).fullname == "streamlabel.Classification"
    kept = len(plain["fields"])
    names = [[field["name"] for field in one["fields"][:kept]] for one in (plain, decided)]
    assert names[0] == names[1]
    assert all(field["default"] is None for field in decided["fields"][kept:])


def test_avro_types_keep_what_the_members_hold() -> None:
    """The id of the message may be null, and is if it is left out; times have a unit."""
    fields = {field["name"]: field for field in json.loads(AVSC)["fields"]}
    assert fields["message_id"]["type"] == ["null", "string"]
    assert fields["message_id"]["default"] is None
    assert fields["score"]["type"] == "double"
    assert fields["processed_at"]["type"] == {"type": "long", "logicalType": "timestamp-millis"}
    assert fields["labels"]["type"]["items"]["name"] == "LabelScore"


def test_every_member_is_described() -> None:
    """As in the JSON Schema: the description of the model's field."""
    fields = json.loads(AVSC)["fields"]
    described = {name: field.description for name, field in Classification.model_fields.items()}
    assert {field["name"]: field["doc"] for field in fields} == described


@pytest.mark.parametrize("form", FORMS)
def test_protobuf_numbers_stay(form: ResultForm) -> None:
    """Each number has the member that it had when it was published."""
    text = (export.FOLDER / f"{form.name}.proto").read_text(encoding="utf-8")
    numbers = NUMBERS | {"Classification": NUMBERS["Classification"] + MORE}
    if form is PLAIN:
        numbers = NUMBERS
    if form is SEVERAL:
        numbers = {name: NUMBERS[name] for name in ("SourceRef", "LabelScore", "ModelRef")}
        numbers |= SEVERAL_NUMBERS
    for message, names in numbers.items():
        body = text.split(f"message {message} {{")[1].split("\n}")[0]
        lines = [line.strip() for line in body.splitlines() if line.endswith(";")]
        assert [line.split()[-3:] for line in lines] == [
            [name, "=", f"{number};"] for number, name in enumerate(names, start=1)
        ]


@pytest.mark.parametrize("form", FORMS)
def test_protoc_accepts_the_file(form: ResultForm) -> None:
    """It imports nothing but what comes with every compiler."""
    bundled = Path(protoc.__file__).parent / "_proto"
    folders = [f"-I{export.FOLDER}", f"-I{bundled}"]
    assert protoc.main(["", *folders, "-o/dev/null", f"{form.name}.proto"]) == 0


def test_a_model_is_defined_once() -> None:
    """Later members name it."""
    start, end, stops, legs = avro_schema(_Trip)["fields"]
    assert start["type"]["fields"][0]["name"] == "at"
    assert (end["type"], stops["type"]["items"]) == ("_Place", "_Place")
    assert legs["type"] == {"type": "array", "items": "long"}
    assert protobuf_file(_Trip).count("message _Place {") == 1


def test_a_member_of_several_types_is_refused() -> None:
    """Protobuf has no such field."""
    with pytest.raises(TypeError, match=r"int \| str"):
        list(members(_Odd))
