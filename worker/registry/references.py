"""Resolves the references of a schema, direct and indirect.

Owns: `resolve`, and the bounds on what one schema may refer to.
Thread: any; a call waits for the registry.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from worker.errors import SchemaRefused
from worker.registry.client import SubjectVersion
from worker.registry.schema import RegisteredSchema, SchemaReference

_DEEPEST: Final = 64  # references of references
_MOST: Final = 1_000  # schemas that one schema refers to
_LONGEST: Final = 64 * 1024 * 1024  # characters of all of them

Version = Callable[[str, int], SubjectVersion | None]


class SchemaMissing(Exception):
    """The registry does not have a schema; the message names it."""


def resolve(schema: RegisteredSchema, version: Version) -> RegisteredSchema:
    """Return the schema with the texts of all its references.

    Args:
        schema: as the registry answered it.
        version: `RegistryClient.version`.

    Raises:
        SchemaMissing: the registry lacks a schema that is referred to.
        SchemaRefused: a schema refers to itself, to two schemas by one name, or to too many.
        RegistryAway, RegistryDenied: as `RegistryClient`.
    """
    if not schema.references:
        return schema
    walk = _Walk(version)
    walk.visit(schema, ())
    return replace(schema, resolved=walk.texts)


@dataclass(slots=True)
class _Walk:
    """A walk through references that visits what a schema needs before the schema itself.

    Attributes:
        texts: name -> text, in this order.
        _found: what each name stands for.
    """

    _version: Version
    texts: dict[str, str] = field(default_factory=dict)
    _found: dict[str, tuple[str, int]] = field(default_factory=dict)
    _length: int = 0

    def visit(self, schema: RegisteredSchema, path: tuple[tuple[str, int], ...]) -> None:
        """Add all that a schema refers to.

        Args:
            schema: one of them, or the first.
            path: the references that lead to it.
        """
        for reference in schema.references:
            place = (reference.subject, reference.version)
            if place in path:
                raise SchemaRefused(f"{_named(reference)} refers to itself")
            if self._found.setdefault(reference.name, place) != place:
                raise SchemaRefused(f"it refers to two schemas by the name {reference.name!r}")
            if reference.name not in self.texts:
                self._add(reference, (*path, place))

    def _add(self, reference: SchemaReference, path: tuple[tuple[str, int], ...]) -> None:
        if len(path) > _DEEPEST or len(self._found) > _MOST:
            raise SchemaRefused(f"its references are more than {_MOST}, or {_DEEPEST} deep")
        found = self._version(reference.subject, reference.version)
        if found is None:
            raise SchemaMissing(f"{_named(reference)}, to which it refers, is not in the registry")
        self._length += len(found.schema.text)
        if self._length > _LONGEST:
            raise SchemaRefused(f"its references have more than {_LONGEST:,} characters")
        self.visit(found.schema, path)
        self.texts[reference.name] = found.schema.text


def _named(reference: SchemaReference) -> str:
    return f"version {reference.version} of subject {reference.subject!r} ({reference.name!r})"
