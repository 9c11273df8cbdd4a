"""Conditions on a record: on a field of its object, or on the label that a model gave it.

Owns: `FieldCondition`, which other conditions extend, and `WhenSettings`, of `models.NAME.when`.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Final, Self

from pydantic import (
    BeforeValidator,
    Field,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)

from worker.settings.section import Section
from worker.settings.sections import PATH_PATTERN, Expression


def _one_or_more(value: Any) -> Any:
    """Return a list; an empty one is refused, as it would be no condition and match all."""
    if value == []:  # not the default, which is a tuple
        raise ValueError("must not be empty: an empty list is no condition; leave it out")
    return value if isinstance(value, list | tuple | dict) else [value]


def _scalar(value: Any) -> Any:
    if not isinstance(value, str | int | float):
        raise ValueError("must be a string, a number, true or false")  # noqa: TRY004
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("must be a finite number, as no record holds another")
    return value


def _schema(one: dict[str, Any]) -> WithJsonSchema:
    """Return the JSON Schema of one value or a list of them."""
    return WithJsonSchema({"anyOf": [one, {"type": "array", "items": one, "minItems": 1}]})


_SCALAR: Final = _schema({"type": ["string", "number", "boolean"]})
Scalar = Annotated[str | int | float | bool, PlainValidator(_scalar)]
Scalars = Annotated[tuple[Scalar, ...], BeforeValidator(_one_or_more), _SCALAR]
Labels = Annotated[tuple[str, ...], BeforeValidator(_one_or_more), _schema({"type": "string"})]

_TESTS: Final = ("in_", "not_in", "matches", "exists")


class FieldCondition(Section):
    """A condition on a field of the record; without `path`, there is none."""

    path: str | None = Field(
        None,
        pattern=PATH_PATTERN,
        description="Path of a field in the record's object: keys or field names, dot-separated.",
    )
    in_: Scalars = Field(
        (),
        alias="in",
        description="Values of the field that the condition holds for. One member of an array suffices.",
    )
    not_in: Scalars = Field((), description="Values of the field that it does not hold for.")
    matches: Expression = Field(
        None,
        min_length=1,
        description="Regular expression that the whole field matches, a string, in Python's syntax. "
        "A field with more than 1,000 characters does not match.",
    )
    exists: bool | None = Field(
        None, description="true: the record has the field; false: it does not."
    )

    @model_validator(mode="after")
    def _meaningful(self) -> Self:
        given = [name.rstrip("_") for name in _TESTS if getattr(self, name) not in ((), None)]
        if self.path is None and given:
            raise ValueError(f"{given[0]!r} needs 'path', the field that it is about")
        if self.path is not None and not given:
            raise ValueError(
                f"path = {self.path!r} needs a test: 'in', 'not_in', 'matches' or 'exists'"
            )
        if self.exists is False and len(given) > 1:
            raise ValueError("'exists' = false leaves no value for the other tests")
        return self


class WhenSettings(FieldCondition):
    """The records that a model applies to: every condition given must hold."""

    model: str | None = Field(None, description="Name of another model, whose label decides.")
    label: Labels = Field((), description="Labels of that model that the condition holds for.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.model is None and not self.label and self.path is None:
            raise ValueError("needs a condition: 'path' or 'model'")
        if self.model is not None and not self.label:
            raise ValueError(f"model = {self.model!r} needs 'label', the labels that decide")
        if self.label and self.model is None:
            raise ValueError("'label' needs 'model', the model whose label decides")
        return self
