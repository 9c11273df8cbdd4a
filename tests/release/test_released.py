"""Promises of earlier versions still hold: their messages can be read, their names exist.

tests/release/released has the promises of each version, as `make release-snapshot` wrote them. Each
check is a function that returns faults, and a planted fault shows that it finds one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from schemas import Classification, DeadLetter
from schemas.export import MODELS, EnrichedMessage
from tests.release import compatible, snapshot
from tests.release.tree import ROOT

RELEASED = sorted(path for path in (ROOT / snapshot.RELEASED).iterdir() if path.is_dir())
TODAY = snapshot.documents("9.9.9")
REMOVED = compatible.removed_names((ROOT / "docs/upgrading.md").read_text(encoding="utf-8"))
MESSAGES = {
    "classification": Classification,
    "enriched_message": EnrichedMessage,
    "dead_letter": DeadLetter,
}

Change = Callable[[Any], object]


@pytest.fixture(params=RELEASED, ids=lambda path: path.name)
def released(request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the files of one version's snapshot."""
    folder: Path = request.param
    return {path.name: path.read_text(encoding="utf-8") for path in folder.iterdir()}


def bodies(text: str, frame: int) -> list[bytes]:
    return [bytes.fromhex(line)[frame:] for line in text.split()]


def avro_faults(old: dict[str, str], new: dict[str, str]) -> list[str]:
    schemas = (json.loads(files["classification.avsc"]) for files in (old, new))
    name = "classification.avro.hex"
    values = (bodies(files[name], snapshot.FRAME_BYTES) for files in (old, new))
    return list(compatible.avro(*schemas, *values))


def protobuf_faults(old: dict[str, str], new: str) -> list[str]:
    values = bodies(old["classification.protobuf.hex"], snapshot.PROTOBUF_FRAME_BYTES)
    return list(compatible.protobuf(old["classification.proto"], new, values))


def test_there_is_a_snapshot_of_each_version_in_the_changelog() -> None:
    """Without one, a version would promise nothing."""
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(\d[^]]*)\]", changelog, re.MULTILINE)
    assert versions
    assert {path.name for path in RELEASED} >= set(versions)


def test_a_snapshot_is_complete(released: dict[str, str]) -> None:
    """It has each of the files that the checks below read."""
    assert released.keys() == TODAY.keys()


@pytest.mark.parametrize("name", MODELS)
def test_json_schemas_take_nothing_back(released: dict[str, str], name: str) -> None:
    old, new = (json.loads(files[f"{name}.schema.json"]) for files in (released, TODAY))
    assert list(compatible.json_schemas(old, new)) == []


@pytest.mark.parametrize("name", MESSAGES)
def test_older_messages_can_be_read(released: dict[str, str], name: str) -> None:
    lines = released[f"{name}.jsonl"].splitlines()
    assert lines
    assert list(compatible.models(MESSAGES[name], lines)) == []


@pytest.mark.parametrize("name", MESSAGES)
def test_older_readers_accept_messages_of_today(released: dict[str, str], name: str) -> None:
    """If they tolerate members that they don't know."""
    schema = json.loads(released[f"{name}.schema.json"])
    assert list(compatible.json_messages(schema, TODAY[f"{name}.jsonl"].splitlines())) == []


def test_avro_readers_and_writers_of_both_versions_agree(released: dict[str, str]) -> None:
    assert avro_faults(released, TODAY) == []


def test_protobuf_keeps_numbers_and_types(released: dict[str, str]) -> None:
    assert protobuf_faults(released, TODAY["classification.proto"]) == []


def test_names_still_exist(released: dict[str, str]) -> None:
    """Settings, flags, variables, metrics, commands; or the page on upgrades lists them."""
    old, new = (json.loads(files[snapshot.NAMES]) for files in (released, TODAY))
    assert list(compatible.names(old, new, REMOVED)) == []


def changed(name: str, change: Change) -> Any:
    document = json.loads(TODAY[name])
    change(document)
    return document


SCHEMA_FAULTS: list[tuple[str, Change]] = [
    ("label is removed", lambda s: s["properties"].pop("label")),
    ("score: type was", lambda s: s["properties"]["score"].update(type="string")),
    ("score: maximum was", lambda s: s["properties"]["score"].update(maximum=100)),
    ("message_id is required", lambda s: s["required"].append("message_id")),
    ("label was required", lambda s: s["required"].remove("label")),
    ("message_id: anyOf had", lambda s: s["properties"]["message_id"]["anyOf"].pop()),
    ("score: exclusiveMinimum was", lambda s: s["properties"]["score"].update(exclusiveMinimum=0)),
    ("label: it has an enum", lambda s: s["properties"]["label"].update(enum=["joy", "anger"])),
    ("label: oneOf had", lambda s: s["properties"]["label"].update(oneOf=[{"minLength": 1}])),
    ("label: allOf had", lambda s: s["properties"]["label"].update(allOf=[{"minLength": 1}])),
    (
        "label: it has an enum",
        lambda s: (
            s["$defs"].update(Label={"type": "string", "enum": ["joy", "anger"]}),
            s["properties"].update(label={"$ref": "#/$defs/Label"}),
        ),
    ),
    ("source.offset is removed", lambda s: s["$defs"]["SourceRef"]["properties"].pop("offset")),
    (
        "labels[].label: type was",
        lambda s: s["$defs"]["LabelScore"]["properties"]["label"].update(type="integer"),
    ),
    (
        "language is new and required",
        lambda s: (
            s["properties"].update(language={"type": "string"}),
            s["required"].append("language"),
        ),
    ),
]


@pytest.mark.parametrize(("fault", "change"), SCHEMA_FAULTS)
def test_a_schema_that_takes_something_back_is_found(fault: str, change: Change) -> None:
    name = "classification.schema.json"
    (found,) = compatible.json_schemas(json.loads(TODAY[name]), changed(name, change))
    assert found.startswith(fault)


def test_a_reason_that_is_removed_is_found_and_a_new_one_is_not() -> None:
    name = "dead_letter.schema.json"
    old = json.loads(TODAY[name])
    fewer = changed(name, lambda s: s["$defs"]["DeadLetterReason"]["enum"].remove("not_json"))
    more = changed(name, lambda s: s["$defs"]["DeadLetterReason"]["enum"].append("too_rude"))
    assert list(compatible.json_schemas(old, fewer)) == ["reason: the value 'not_json' is removed"]
    assert list(compatible.json_schemas(old, more)) == []


def test_an_optional_member_may_be_added() -> None:
    name = "classification.schema.json"
    optional = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
    new = changed(name, lambda s: s["properties"].update(language=optional))
    assert list(compatible.json_schemas(json.loads(TODAY[name]), new)) == []


def test_a_message_that_a_model_refuses_or_changes_is_found() -> None:
    line = TODAY["classification.jsonl"].splitlines()[0]
    missing = json.dumps({k: v for k, v in json.loads(line).items() if k != "label"})
    (refused,) = compatible.models(Classification, [missing])
    assert refused.startswith("Classification refuses a message")
    retyped = line.replace('"token_count":7', '"token_count":"7"')
    assert list(compatible.models(Classification, [retyped])) == [
        "token_count was '7' and is read as 7"
    ]


def test_a_message_that_older_readers_refuse_is_found() -> None:
    schema = json.loads(TODAY["classification.schema.json"])
    line = TODAY["classification.jsonl"].splitlines()[0]
    assert list(compatible.json_messages(schema, [line.replace("{", '{"more":1,', 1)])) == []
    (found,) = compatible.json_messages(schema, [line.replace('"score":0.98', '"score":98.0')])
    assert "98.0 is greater than the maximum of 1" in found


AVRO_FAULTS: list[tuple[str, Change]] = [
    ("an older Avro result can't be read", lambda s: s["fields"][2].update(type="long")),
    ("an older Avro result can't be read", lambda s: s["fields"][3].update(type="float")),
    ("a newer Avro result can't be read", lambda s: s["fields"][5].update(type="double")),
    (
        "an older Avro result can't be read",
        lambda s: s["fields"].append({"name": "language", "type": "string"}),
    ),
]


@pytest.mark.parametrize(("fault", "change"), AVRO_FAULTS)
def test_an_avro_schema_that_breaks_readers_is_found(fault: str, change: Change) -> None:
    """Resolution fails, in one direction or the other."""
    schema = changed("classification.avsc", change)
    files = TODAY | {"classification.avsc": json.dumps(schema)}
    old = json.loads(TODAY["classification.avsc"])
    values = bodies(TODAY["classification.avro.hex"], snapshot.FRAME_BYTES)
    written = [rewritten(value, old, json.loads(files["classification.avsc"])) for value in values]
    assert any(found.startswith(fault) for found in compatible.avro(old, schema, values, written))


def rewritten(value: bytes, old: Any, new: Any) -> bytes:
    """Return a result as an encoder with another schema would write it."""
    import io  # noqa: PLC0415

    from fastavro import parse_schema, schemaless_reader, schemaless_writer  # noqa: PLC0415

    document = schemaless_reader(io.BytesIO(value), parse_schema(old), None)
    kinds: dict[Any, Any] = {"long": 1, "double": 1.5, "float": 1.5, "string": "en"}
    for field in new["fields"]:
        if isinstance(field["type"], str):
            document[field["name"]] = kinds.get(field["type"], document.get(field["name"]))
    out = io.BytesIO()
    schemaless_writer(out, parse_schema(new), document)
    return out.getvalue()


def test_an_avro_field_with_a_default_may_be_added() -> None:
    field = {"name": "language", "type": ["null", "string"], "default": None}
    schema = changed("classification.avsc", lambda s: s["fields"].append(field))
    values = bodies(TODAY["classification.avro.hex"], snapshot.FRAME_BYTES)
    old = json.loads(TODAY["classification.avsc"])
    assert list(compatible.avro(old, schema, values, [value + b"\0" for value in values])) == []


PROTOBUF_FAULTS = [
    ("Classification.score = 4 is now score", "double score = 4;", "float score = 4;"),
    ("Classification.label = 3 is removed", "string label = 3;", "string label = 12;"),
    ("Classification.label = 3 is now name", "string label = 3;", "string name = 3;"),
    ("Classification.message_id = 2 is now", "optional string message_id", "string message_id"),
    ("ModelRef.revision = 2 is removed", "  string revision = 2;\n", ""),
]


@pytest.mark.parametrize(("fault", "old", "new"), PROTOBUF_FAULTS)
def test_a_protobuf_file_that_breaks_readers_is_found(fault: str, old: str, new: str) -> None:
    text = TODAY["classification.proto"]
    assert old in text
    found = protobuf_faults(TODAY, text.replace(old, new))
    assert any(line.removeprefix("streamlabel.").startswith(fault) for line in found), found


def test_a_protobuf_field_may_be_added() -> None:
    last = "double processing_ms = 11;"
    text = TODAY["classification.proto"].replace(last, f"{last}\n  optional string language = 12;")
    assert "language" in text
    assert protobuf_faults(TODAY, text) == []


NAME_FAULTS: list[tuple[str, str, Change]] = [
    ("command audit is removed", "audit", lambda n: n["commands"].remove("audit")),
    (
        "setting kafka.group_id is removed",
        "kafka.group_id",
        lambda n: n["settings"].pop("kafka.group_id"),
    ),
    (
        "setting model.name is no longer set by --model",
        "--model",
        lambda n: n["settings"]["model.name"].update(flag="--model-name"),
    ),
    (
        "setting delivery no longer takes exactly_once",
        "delivery = exactly_once",
        lambda n: n["settings"]["delivery"]["choices"].remove("exactly_once"),
    ),
    (
        "metric streamlabel_records_published_total was",
        "streamlabel_records_published_total",
        lambda n: n["metrics"].pop("streamlabel_records_published_total"),
    ),
    (
        "metric streamlabel_offset_lag was",
        "streamlabel_offset_lag",
        lambda n: n["metrics"]["streamlabel_offset_lag"].update(labels=["partition"]),
    ),
    (
        "chart value image.tag is removed",
        "image.tag",
        lambda n: n["chart_values"].remove("image.tag"),
    ),
    (
        "dead letter reason not_json is removed",
        "not_json",
        lambda n: n["dead_letter_reasons"].remove("not_json"),
    ),
]


@pytest.mark.parametrize(("fault", "name", "change"), NAME_FAULTS)
def test_a_name_that_is_gone_is_found_unless_the_page_lists_it(
    fault: str, name: str, change: Change
) -> None:
    old = changed(snapshot.NAMES, lambda n: n.update(chart_values=["image.tag"]))
    new = deepcopy(old)
    change(new)
    (found,) = compatible.names(old, new, frozenset())
    assert found.startswith(fault)
    page = (
        f"\n## Deprecated and removed names\n\n| Name | Instead |\n| --- | --- |\n| `{name}` | - |"
    )
    assert list(compatible.names(old, new, compatible.removed_names(page))) == []


def test_a_snapshot_that_differs_from_the_code_is_found(tmp_path: Path) -> None:
    """A release check compares the snapshot of its own version."""
    folder = tmp_path / snapshot.RELEASED / "9.9.9"
    folder.mkdir(parents=True)
    for name, text in deepcopy(TODAY).items():
        (folder / name).write_text(text, encoding="utf-8")
    assert snapshot.changed(tmp_path, "9.9.9") == []
    (folder / snapshot.NAMES).write_text("{}")
    (folder / "classification.avsc").unlink()
    assert snapshot.changed(tmp_path, "9.9.9") == ["classification.avsc", snapshot.NAMES]
