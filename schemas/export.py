"""Writes the wire contract for other languages: JSON Schemas, Avro, Protobuf and AsyncAPI.

Run it with `python -m schemas.export`, or with `--check` to compare only.

Owns: the `*.json`, `*.avsc` and `*.proto` files in this folder; a test fails if they differ from
the models.
Thread: main, of this program.
Must not import: worker; anything but pydantic and schemas.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from schemas.avro import avro_schema
from schemas.classification import Classification
from schemas.classifications import Classifications, EnrichedBySeveralMessage
from schemas.dead_letter import DeadLetter
from schemas.decided import DecidedClassification, EnrichedDecidedMessage
from schemas.forms import FORMS
from schemas.protobuf import protobuf_file
from schemas.text_message import TextMessage

FOLDER = Path(__file__).parent
DIALECT = "https://json-schema.org/draft/2020-12/schema"
CONTRACT_VERSION = "1.0.0"  # of the contract, not of the program

_COMPONENTS = "#/components"
_RESULTS = (
    "Classification",
    "DecidedClassification",
    "EnrichedMessage",
    "EnrichedDecidedMessage",
    "Classifications",
    "EnrichedBySeveralMessage",
)
_KAFKA = {"bindingVersion": "0.5.0"}

Document = dict[str, Any]


class EnrichedMessage(TextMessage):
    """The unchanged input object with the result as an additional member.

    Published instead of a plain classification with `output.mode = "enrich"`.
    """

    classification: Classification = Field(description="Result for the text of this object.")


MODELS: dict[str, type[BaseModel]] = {
    "text_message": TextMessage,
    "classification": Classification,
    "decided_classification": DecidedClassification,
    "enriched_message": EnrichedMessage,
    "enriched_decided_message": EnrichedDecidedMessage,
    "classifications": Classifications,
    "enriched_by_several_message": EnrichedBySeveralMessage,
    "dead_letter": DeadLetter,
}


def documents() -> dict[str, Document]:
    """Return every generated JSON document by its file name."""
    schemas = {f"{name}.schema.json": json_schema(name) for name in MODELS}
    avro = {f"{form.name}.avsc": avro_schema(form.model) for form in FORMS}
    return schemas | avro | {"asyncapi.json": _asyncapi()}


def rendered() -> dict[str, str]:
    """Return every generated file's content by its name."""
    files = {name: json.dumps(body, indent=2) + "\n" for name, body in documents().items()}
    return files | {f"{form.name}.proto": protobuf_file(form.model) for form in FORMS}


def drifted(folder: Path) -> list[str]:
    """Return the names of the files in `folder` that are missing or differ from the models."""
    return [name for name, text in rendered().items() if _read(folder / name) != text]


def _read(path: Path) -> str | None:
    return path.read_text(encoding="utf-8") if path.exists() else None


def json_schema(name: str) -> Document:
    """Return the JSON Schema of one of `MODELS`."""
    # With "validation", members with defaults are optional: a reader that is built from the schema
    # accepts documents without them as well as the worker's, in which they are null.
    body = MODELS[name].model_json_schema(mode="validation")
    return {"$schema": DIALECT, "$id": f"urn:streamlabel:schema:{name}", **body}


def _asyncapi() -> Document:
    """Return the AsyncAPI document; `receive` and `send` are seen from the worker."""
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "streamlabel",
            "version": CONTRACT_VERSION,
            "description": "Labels texts with the probability of every label. Topics have their "
            "default names; set others with `input.topic`, `output.topic` and "
            "`output.dead_letter_topic`.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {
            "texts": _channel("texts.in", "Texts to label.", "TextMessage", "PlainText"),
            "labelled": _channel(
                "texts.labelled",
                "Results, in the order of their source partition.",
                *_RESULTS,
            ),
            "dead": _channel("texts.dead", "Records that could not be labelled.", "DeadLetter"),
        },
        "operations": {
            "readTexts": _operation("receive", "texts", "TextMessage", "PlainText")
            | {"bindings": {"kafka": {"groupId": {"type": "string"}, **_KAFKA}}},
            "publishResults": _operation("send", "labelled", *_RESULTS),
            "publishDeadLetters": _operation("send", "dead", "DeadLetter"),
        },
        "components": {"schemas": _component_schemas(), "messages": _messages()},
    }


def _channel(address: str, description: str, *messages: str) -> Document:
    return {
        "address": address,
        "description": description,
        "messages": {name: {"$ref": f"{_COMPONENTS}/messages/{name}"} for name in messages},
        "bindings": {"kafka": {"topic": address, **_KAFKA}},
    }


def _operation(action: str, channel: str, *messages: str) -> Document:
    return {
        "action": action,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"} for name in messages],
    }


def _component_schemas() -> Document:
    _, body = models_json_schema(
        [(model, "validation") for model in MODELS.values()],
        ref_template=f"{_COMPONENTS}/schemas/{{model}}",
    )
    return {**body["$defs"], "ResultHeaders": _headers(), "DeadLetterHeaders": _headers(_REASON)}


_SOURCE: Document = {
    "streamlabel-source": {
        "type": "string",
        "pattern": r"^[A-Za-z0-9._-]{1,249}/[0-9]+/[0-9]+$",
        "description": "Coordinates of the input record: topic/partition/offset.",
        "examples": ["texts.in/3/1042"],
    }
}
_REASON: Document = {
    "streamlabel-dead-letter": {
        "type": "string",
        "contentMediaType": "application/json",
        "contentSchema": {"$ref": f"{_COMPONENTS}/schemas/DeadLetter"},
        "description": "Context of the dead letter: a DeadLetter document in UTF-8.",
    }
}


def _headers(more: Document | None = None) -> Document:
    properties = _SOURCE | (more or {})
    return {
        "type": "object",
        "description": "Headers of the input record, and the following.",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": True,
    }


def _messages() -> Document:
    result = {"headers": {"$ref": f"{_COMPONENTS}/schemas/ResultHeaders"}}
    plain = {
        "type": "string",
        "minLength": 1,
        "description": "Text to label, in UTF-8. Must not be blank.",
    }
    original = {"description": "Value of the input record, byte for byte; cut if too large."}
    return {
        "TextMessage": _message(
            'Text in a JSON object, with `input.format = "json"`.', _json_of(TextMessage)
        ),
        "PlainText": _message(
            'Plain text, with `input.format = "text"`.',
            {"contentType": "text/plain", "payload": plain},
        ),
        "Classification": _message(
            'Result, with `output.mode = "classification"`.', result | _json_of(Classification)
        ),
        "EnrichedMessage": _message(
            'Input object with its result, with `output.mode = "enrich"`.',
            result | _json_of(EnrichedMessage),
        ),
        "DecidedClassification": _message(
            "Result with preparation, a decision or windows.",
            result | _json_of(DecidedClassification),
        ),
        "EnrichedDecidedMessage": _message(
            "Input object with such a result.", result | _json_of(EnrichedDecidedMessage)
        ),
        "Classifications": _message(
            "Result of several models.", result | _json_of(Classifications)
        ),
        "EnrichedBySeveralMessage": _message(
            "Input object with a result of several models.",
            result | _json_of(EnrichedBySeveralMessage),
        ),
        "DeadLetter": _message(
            "Original record, and the reason why it could not be labelled.",
            {
                "headers": {"$ref": f"{_COMPONENTS}/schemas/DeadLetterHeaders"},
                "contentType": "application/octet-stream",
                "payload": original,
            },
        ),
    }


def _json_of(model: type[BaseModel]) -> Document:
    payload = {"$ref": f"{_COMPONENTS}/schemas/{model.__name__}"}
    return {"contentType": "application/json", "payload": payload}


def _message(summary: str, body: Document) -> Document:
    key = {"type": ["string", "null"], "description": "Any bytes; copied from the input record."}
    return {"summary": summary, **body, "bindings": {"kafka": {"key": key, **_KAFKA}}}


def main(argv: Sequence[str] | None = None, folder: Path = FOLDER) -> int:
    """Write the files, or with `--check` list the files that differ and return 1."""
    parser = argparse.ArgumentParser(prog="python -m schemas.export", description=main.__doc__)
    parser.add_argument(
        "--check", action="store_true", help="only compare; exit with code 1 if a file differs"
    )
    if parser.parse_args(argv).check:
        stale = drifted(folder)
        for name in stale:
            sys.stderr.write(f"{name} is stale: run python -m schemas.export\n")
        return 1 if stale else 0
    for name, text in rendered().items():
        (folder / name).write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
