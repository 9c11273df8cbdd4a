"""The members of each message, and the reasons of dead letters, from `schemas/`.

Owns: the tables of the page on messages, and the descriptions of the reasons.
Thread: the main thread.
Must not import: worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from benchmarks.docs.markdown import table
from schemas import (
    Classification,
    Classifications,
    DeadLetter,
    DeadLetterReason,
    DecidedClassification,
    TextMessage,
)

_REASONS = {
    DeadLetterReason.NULL_VALUE: "The record has no value (a tombstone).",
    DeadLetterReason.TOO_LARGE: "The value is larger than `input.max_bytes`, or the record is "
    "larger than `max_inflight_bytes`.",
    DeadLetterReason.SCHEMA_FRAMED: "A serializer of a schema registry wrote the value. The message "
    "names the schema's id.",
    DeadLetterReason.NOT_FRAMED: "The value does not have the frame of a schema registry's "
    "serializer, which `input.format` requires.",
    DeadLetterReason.UNKNOWN_SCHEMA: "The registry has no schema of the record's id, or the frame is "
    "of another kind of registry.",
    DeadLetterReason.UNUSABLE_SCHEMA: "The record's schema can't be used; the message says why.",
    DeadLetterReason.SCHEMA_MISMATCH: "The value does not match its schema, or the schema has "
    "another type than `input.format`.",
    DeadLetterReason.NOT_UTF8: "The value is not UTF-8.",
    DeadLetterReason.NOT_JSON: "The value is not JSON.",
    DeadLetterReason.NOT_AN_OBJECT: "The value is JSON, but not an object.",
    DeadLetterReason.PATH_MISSING: "The object has no member at `input.text_path`.",
    DeadLetterReason.NOT_A_STRING: "The member at `input.text_path` is not a string.",
    DeadLetterReason.EMPTY_TEXT: "The text is empty or has only invisible characters: white space, "
    "control and zero-width characters.",
    DeadLetterReason.PREPARE_FAILED: "`prepare.function` raised an error, or returned something that "
    "is no text or too long; or it skipped the record, and `output.filtered_topic` is not set.",
    DeadLetterReason.TOO_MANY_TOKENS: "The text has more tokens than the model takes, and "
    '`input.overflow` is `"dead_letter"`.',
    DeadLetterReason.TOKENISER_FAILED: "The tokenizer fails on this text, and on no other of its "
    "batch.",
    DeadLetterReason.MODEL_FAILED: "The model fails on this text, and on no other of its batch.",
    DeadLetterReason.RESULT_TOO_LARGE: "The result is larger than the output topic takes.",
    DeadLetterReason.RESULT_REFUSED: "The output topic refused the result. The message quotes the "
    "broker.",
}


def members() -> str:
    """Return a table of members for every message; nested members by their path."""
    parts = []
    for model in (TextMessage, Classification, DecidedClassification, Classifications, DeadLetter):
        schema = model.model_json_schema()
        listed = _members(_differing(schema, model), schema)
        rows = table(("Member", "Type", "Description"), listed)
        parts.append(f"### {model.__name__}\n\n{schema['description']}\n\n{rows}")
    return "\n\n".join(parts)


def _differing(schema: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return a schema without the members that are those of the model's base."""
    (base, *_) = model.__bases__
    same = base.model_json_schema()["properties"] if base is Classification else {}
    kept = {n: body for n, body in schema["properties"].items() if body != same.get(n)}
    return schema | {"properties": kept}


def reasons() -> str:
    """Return the table of reasons; a reason without a description is a KeyError."""
    rows = ((f"`{reason}`", _REASONS[reason]) for reason in DeadLetterReason)
    return table(("Reason", "Meaning"), rows)


def _members(schema: dict[str, Any], root: dict[str, Any], prefix: str = "") -> Iterator[list[str]]:
    required = schema.get("required", [])
    for name, declared in schema["properties"].items():
        body = _resolved(declared, root)
        items = _resolved(body.get("items", {}), root)
        parts = [_resolved(part, root) for part in body.get("anyOf", [body])]
        optional = "" if name in required else ", optional"
        description = declared.get("description") or body.get("description", "")
        yield [f"`{prefix}{name}`", _type(parts, items) + optional, description]
        for part in parts:
            if "properties" in part:
                yield from _members(part, root, f"{prefix}{name}.")
        if "properties" in items:
            yield from _members(items, root, f"{prefix}{name}[].")
        values = body.get("additionalProperties") or {}
        for part in [_resolved(one, root) for one in values.get("anyOf", ())]:
            if "properties" in part:
                yield from _members(part, root, f"{prefix}{name}.NAME.")


def _resolved(node: dict[str, Any], root: dict[str, Any]) -> dict[str, Any]:
    reference = node.get("$ref")
    target: dict[str, Any] = root["$defs"][reference.rpartition("/")[2]] if reference else node
    return target


def _type(parts: list[dict[str, Any]], items: dict[str, Any]) -> str:
    if items:
        return f"array of {items['type']}s"
    return " or ".join(part.get("format", part["type"]) for part in parts)
