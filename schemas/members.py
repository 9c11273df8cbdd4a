"""The members of a model, as the generators of Avro and Protobuf schemas need them.

Owns: the types of members that those formats can express.
Thread: any; pure.
Must not import: worker; anything but pydantic.
"""

from __future__ import annotations

import inspect
import types
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel

Model = type[BaseModel]


class ModelMember(NamedTuple):
    """One member of a model.

    Attributes:
        kind: a scalar type or a model; of a list, that of its items; of a map, that of its values.
        optional: whether it, or a value of a map, may be null.
        repeated: whether it is a list.
        mapped: whether it is a map of names to values.
    """

    name: str
    kind: Any
    optional: bool
    repeated: bool
    description: str
    mapped: bool = False


def members(model: Model) -> Iterator[ModelMember]:
    """Yield the members of a model, in its order."""
    for name, field in model.model_fields.items():
        kind, optional = _without_null(field.annotation)
        repeated, mapped = get_origin(kind) is list, get_origin(kind) is dict
        if mapped:
            item, optional = _without_null(get_args(kind)[1])
        else:
            item = get_args(kind)[0] if repeated else kind
        yield ModelMember(name, item, optional, repeated, field.description or "", mapped)


def wire_name(model: Model) -> str:
    """Return a model's name in a schema: its title, if it has one."""
    return model.model_config.get("title") or model.__name__


def description(model: Model) -> str:
    """Return the summary of a model."""
    return inspect.getdoc(model) or ""


def is_model(kind: Any) -> bool:
    """Return whether a member's kind is a model."""
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _without_null(annotation: Any) -> tuple[Any, bool]:
    if get_origin(annotation) is not types.UnionType:
        return annotation, False
    kind, null = get_args(annotation)
    if null is not types.NoneType:
        raise TypeError(f"{annotation} is neither one type nor one type and None")
    return kind, True
