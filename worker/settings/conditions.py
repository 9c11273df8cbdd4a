"""A condition on a record: on a field of it, or on the label that a model gave it.

Owns: `ConditionSettings` and `Conditions`, which `when` of a model and of a route have.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from worker.settings.section import Section
from worker.settings.sections import FIELD_PATH, Expression

Scalar = str | int | float | bool
_TESTS = ("in_", "not_in", "matches", "exists")


def _one_or_more(value: Any) -> Any:
    """Return a list of a single value."""
    return value if isinstance(value, list | tuple) else [value]


def _scalars(value: Any) -> Any:
    values = _one_or_more(value)
    if not all(isinstance(one, str | int | float | bool) for one in values):
        raise ValueError("must be a list of strings, numbers and booleans")
    return tuple(values)


Scalars = Annotated[
    tuple[Any, ...],
    BeforeValidator(_scalars),
    WithJsonSchema({"type": "array", "items": {"type": ["string", "number", "boolean"]}}),
]
Labels = Annotated[tuple[str, ...], BeforeValidator(_one_or_more)]


class ConditionSettings(Section):
    """One condition: on a field of the record by `path`, or on a label by `model` and `label`."""

    path: str | None = Field(
        None,
        pattern=FIELD_PATH,
        description="Path of a field of the record: keys, dot-separated. A record without it does "
        "not match, and is counted.",
    )
    in_: Scalars = Field((), alias="in", description="Values, one of which the field must have.")
    not_in: Scalars = Field((), description="Values, none of which the field may have.")
    matches: Expression = Field(
        None,
        min_length=1,
        description="Regular expression that must match the whole text of the field, in Python's "
        "syntax.",
    )
    exists: bool | None = Field(
        None, description="Whether the field must be there, or must be missing."
    )
    model: str | None = Field(None, description="Name of the model whose label is looked at.")
    label: Labels = Field((), description="Labels, one of which that model must have chosen.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if problem := next(self._problems(), None):
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        tests = [name.rstrip("_") for name in _TESTS if getattr(self, name) not in (None, ())]
        if (self.path is None) == (self.model is None):
            yield "needs either path, a field of the record, or model and label"
        elif self.path is not None and len(tests) != 1:
            yield "path needs one of in, not_in, matches and exists"
        elif self.path is not None and self.label:
            yield "label is for a model: use in for the values of a field"
        elif self.model is not None and (tests or not self.label):
            yield "model needs label, and nothing else"


# All of them must hold; one alone needs no list.
Conditions = Annotated[tuple[ConditionSettings, ...], BeforeValidator(_one_or_more)]
