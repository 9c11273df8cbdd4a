"""Writes a model as a Protobuf file.

A field's number is its place in the model. So a new member belongs at the end of its model, and
none may be removed; a test holds the numbers.

Owns: the Protobuf types of members.
Thread: any; pure.
Must not import: worker; anything but pydantic.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import datetime

from schemas.members import Model, ModelMember, description, is_model, members, wire_name

PACKAGE = "streamlabel"

_TYPES: dict[type, str] = {
    str: "string",
    bool: "bool",
    int: "int64",
    float: "double",
    datetime: "google.protobuf.Timestamp",
}
_HEAD = f"""\
// Generated from the models by schemas/export.py.
syntax = "proto3";

package {PACKAGE};

import "google/protobuf/timestamp.proto";
"""


def protobuf_file(model: Model) -> str:
    """Return a `.proto` file whose first message is the model."""
    models: list[Model] = [model]
    for each in models:  # grows meanwhile
        kinds = [member.kind for member in members(each) if is_model(member.kind)]
        models += [kind for kind in dict.fromkeys(kinds) if kind not in models]
    return "\n".join([_HEAD, *(_message(each) for each in models)])


def _message(model: Model) -> str:
    lines = [*_comment(description(model), ""), f"message {wire_name(model)} {{"]
    for number, member in enumerate(members(model), start=1):
        lines += [*_comment(member.description, "  "), f"  {_declaration(member)} = {number};"]
    return "\n".join([*lines, "}", ""])


def _declaration(member: ModelMember) -> str:
    kind = wire_name(member.kind) if is_model(member.kind) else _TYPES[member.kind]
    if member.mapped:
        return f"map<string, {kind}> {member.name}"
    label = "repeated " if member.repeated else "optional " if member.optional else ""
    return f"{label}{kind} {member.name}"


def _comment(text: str, indent: str) -> Iterator[str]:
    prefix = f"{indent}// "
    return iter(textwrap.wrap(text, 100, initial_indent=prefix, subsequent_indent=prefix))
