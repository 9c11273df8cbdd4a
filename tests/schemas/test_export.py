"""The generated contract: it matches the models, is valid, and describes the worker's messages."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from schemas import export
from schemas.members import wire_name
from worker.core.coordinates import SOURCE_HEADER, format_source
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.formats.plain_json import ENRICHED_MEMBER
from worker.settings import Settings

SOURCE = {"topic": "texts.in", "partition": 3, "offset": 1042, "timestamp_ms": 1_700_000_000_000}
CLASSIFICATION = {
    "id": "5f3c8f8e-5b0e-5d4c-9c55-0f6f3e2f9a11",
    "label": "POSITIVE",
    "score": 0.98,
    "labels": [{"label": "NEGATIVE", "score": 0.02}, {"label": "POSITIVE", "score": 0.98}],
    "token_count": 7,
    "truncated": False,
    "source": SOURCE,
    "model": {"name": "bundled", "revision": "local", "weights_sha256": "0" * 64},
    "processed_at": "2026-01-01T00:00:00Z",
    "processing_ms": 12.5,
}
DECIDED = {
    **CLASSIFICATION,
    "prepared": "urls mentions",
    "temperature": 1.4,
    "decided": ["POSITIVE"],
    "windows": 3,
    "total_tokens": 1400,
}
_SAID: dict[str, Any] = {
    name: CLASSIFICATION[name] for name in ("label", "score", "labels", "token_count")
}
_SAID |= {"truncated": False, "model": CLASSIFICATION["model"]}
SEVERAL: dict[str, Any] = {
    "id": CLASSIFICATION["id"],
    "classifications": {"tone": _SAID | {"decided": ["POSITIVE"]}, "topic": None},
    "absences": {"topic": "not_applicable"},
    "source": SOURCE,
    "model": {"name": "tone+topic", "revision": "set", "weights_sha256": "0" * 64},
    "processed_at": CLASSIFICATION["processed_at"],
    "processing_ms": 1.5,
}
EXAMPLES: dict[str, dict[str, Any]] = {
    "text_message": {"text": "what a day", "id": 7, "lang": "en"},
    "classification": CLASSIFICATION,
    "enriched_message": {"text": "what a day", "lang": "en", "classification": CLASSIFICATION},
    "decided_classification": DECIDED,
    "enriched_decided_message": {"text": "what a day", "classification": DECIDED},
    "classifications": SEVERAL,
    "enriched_by_several_message": {"text": "what a day", "classification": SEVERAL},
    "dead_letter": {
        "reason": "not_json",
        "message": "not JSON: Expecting value at character 0",
        "source": SOURCE,
        "value_state": "whole",
        "value_bytes": 12,
        "attempt": 1,
        "worker_version": "0.1.0",
        "failed_at": "2026-01-01T00:00:00Z",
    },
}
BROKEN: list[tuple[str, str, Any]] = [
    ("text_message", "text", None),
    ("text_message", "text", ""),
    ("classification", "score", 1.5),
    ("classification", "labels", []),
    ("classification", "labels", [{"label": "POSITIVE"}]),
    ("classification", "surplus", 1),
    ("classification", "source", {"topic": "texts.in"}),
    ("classification", "model", {**CLASSIFICATION["model"], "weights_sha256": "short"}),  # type: ignore[dict-item]
    ("decided_classification", "decided", "POSITIVE"),
    ("decided_classification", "temperature", 0),
    ("decided_classification", "windows", 0),
    ("enriched_message", "classification", {"label": "POSITIVE"}),
    ("enriched_message", "classification", DECIDED),
    ("classifications", "classifications", {"tone": {"label": "POSITIVE"}}),
    ("classifications", "absences", {"tone": None}),
    ("dead_letter", "reason", "bad_luck"),
    ("dead_letter", "attempt", 0),
    ("dead_letter", "value_state", "gone"),
]


def committed(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((export.FOLDER / name).read_text(encoding="utf-8"))
    return document


def validator(name: str) -> Draft202012Validator:
    return Draft202012Validator(committed(f"{name}.schema.json"))


@pytest.fixture(scope="module")
def asyncapi() -> dict[str, Any]:
    return committed("asyncapi.json")


def test_the_committed_files_match_the_models() -> None:
    """`python -m schemas.export` would change nothing."""
    assert export.drifted(export.FOLDER) == []


def test_check_names_the_files_that_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A changed or missing file is named and fails the check; writing the files fixes it."""
    assert export.main([], folder=tmp_path) == 0
    assert export.main(["--check"], folder=tmp_path) == 0
    stale = tmp_path / "classification.schema.json"
    stale.write_text(stale.read_text().replace("probability", "likelihood", 1))
    (tmp_path / "asyncapi.json").unlink()
    assert export.main(["--check"], folder=tmp_path) == 1
    lines = capsys.readouterr().err.splitlines()
    assert [line.split()[0] for line in lines] == ["classification.schema.json", "asyncapi.json"]


def test_the_module_runs_as_a_program(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m schemas.export --check` ends with the check's exit code."""
    monkeypatch.setattr("sys.argv", ["export", "--check"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(export.__file__, run_name="__main__")
    assert ended.value.code == 0


@pytest.mark.parametrize("name", export.MODELS)
def test_each_schema_is_valid_and_has_an_identity(name: str) -> None:
    """It follows the metaschema of JSON Schema 2020-12, with an id and a title."""
    schema = committed(f"{name}.schema.json")
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["$id"].endswith(name)
    assert schema["title"] == wire_name(export.MODELS[name])


@pytest.mark.parametrize("name", export.MODELS)
def test_examples_are_accepted_by_schema_and_model(name: str) -> None:
    """The worker's output is valid, with optional members left out or null."""
    example = EXAMPLES[name]
    validator(name).validate(example)
    model = export.MODELS[name].model_validate(example)
    validator(name).validate(json.loads(model.model_dump_json()))


@pytest.mark.parametrize("name", export.MODELS)
def test_every_required_member_is_required(name: str) -> None:
    """A document without a required member is invalid."""
    required = committed(f"{name}.schema.json")["required"]
    assert required
    for member in required:
        rest = {k: v for k, v in EXAMPLES[name].items() if k != member}
        with pytest.raises(ValidationError):
            validator(name).validate(rest)


@pytest.mark.parametrize(("name", "member", "value"), BROKEN)
def test_invalid_examples_are_rejected(name: str, member: str, value: Any) -> None:
    """A wrong type, a value out of bounds and an unknown reason are invalid."""
    with pytest.raises(ValidationError):
        validator(name).validate({**EXAMPLES[name], member: value})


def test_every_reference_of_the_asyncapi_document_resolves(asyncapi: dict[str, Any]) -> None:
    """Every `$ref` points to a part of the document."""
    assert dangling(asyncapi) == []
    broken = deepcopy(asyncapi)
    del broken["components"]["schemas"]["SourceRef"]
    assert "#/components/schemas/SourceRef" in dangling(broken)


def test_every_operation_uses_messages_of_its_channel(asyncapi: dict[str, Any]) -> None:
    """The worker receives from one channel and sends to two."""
    actions = {}
    for operation in asyncapi["operations"].values():
        channel = resolve(asyncapi, operation["channel"]["$ref"])
        actions[channel["address"]] = operation["action"]
        for message in operation["messages"]:
            assert message["$ref"].startswith(operation["channel"]["$ref"] + "/messages/")
    assert actions == {"texts.in": "receive", "texts.labelled": "send", "texts.dead": "send"}


def test_the_channels_are_the_default_topics(asyncapi: dict[str, Any]) -> None:
    """The addresses are the defaults of the settings."""
    topics = Settings().topics.all
    assert tuple(channel["address"] for channel in asyncapi["channels"].values()) == topics


def test_the_headers_match_those_of_the_worker(asyncapi: dict[str, Any]) -> None:
    """Names and format of the worker's headers, and the member of an enriched message."""
    schemas = asyncapi["components"]["schemas"]
    assert schemas["ResultHeaders"]["required"] == [SOURCE_HEADER]
    assert schemas["DeadLetterHeaders"]["required"] == [SOURCE_HEADER, DEAD_LETTER_HEADER]
    headers = Draft202012Validator(schemas["ResultHeaders"])
    headers.validate({SOURCE_HEADER: format_source("texts.in", 3, 1042).decode(), "trace": "x"})
    with pytest.raises(ValidationError):
        headers.validate({SOURCE_HEADER: "texts.in/3"})
    assert ENRICHED_MEMBER in schemas["EnrichedMessage"]["required"]


def test_component_schemas_equal_the_files(asyncapi: dict[str, Any]) -> None:
    """An example is valid by the AsyncAPI document's schema too."""
    for name, model in export.MODELS.items():
        schema = {**asyncapi, "$ref": f"#/components/schemas/{model.__name__}"}
        Draft202012Validator(schema).validate(EXAMPLES[name])


def resolve(document: dict[str, Any], pointer: str) -> Any:
    node: Any = document
    for step in pointer.removeprefix("#/").split("/"):
        node = node[step]
    return node


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def dangling(document: dict[str, Any]) -> list[str]:
    unresolved = []
    for pointer in references(document):
        try:
            resolve(document, pointer)
        except KeyError:
            unresolved.append(pointer)
    return unresolved
