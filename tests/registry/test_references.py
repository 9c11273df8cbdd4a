"""References of schemas: all of them are found, in order, within bounds."""

from __future__ import annotations

import pytest

from worker.errors import RegistryAway, SchemaRefused
from worker.registry.client import SubjectVersion
from worker.registry.references import SchemaMissing, resolve
from worker.registry.schema import RegisteredSchema, SchemaReference


def schema(text: str, *names: str) -> RegisteredSchema:
    """A schema that refers to others, each under its own name."""
    return RegisteredSchema("AVRO", text, tuple(SchemaReference(name, name, 1) for name in names))


class Subjects:
    """A registry of subjects with one version each."""

    def __init__(self, **schemas: RegisteredSchema) -> None:
        self._schemas, self.asked = schemas, list[str]()

    def version(self, subject: str, version: int) -> SubjectVersion | None:
        self.asked.append(subject)
        found = self._schemas.get(subject)
        return SubjectVersion(1, version, found) if found else None


def test_a_schema_without_references_asks_for_nothing() -> None:
    subjects = Subjects()
    assert resolve(schema("a"), subjects.version) == schema("a")
    assert subjects.asked == []


def test_a_schema_comes_after_those_that_it_refers_to() -> None:
    subjects = Subjects(b=schema("B", "d"), c=schema("C", "d", "b"), d=schema("D"))
    resolved = resolve(schema("A", "c", "b"), subjects.version)
    assert list(resolved.resolved.items()) == [("d", "D"), ("b", "B"), ("c", "C")]
    assert (resolved.text, resolved.references) == ("A", schema("A", "c", "b").references)
    assert sorted(subjects.asked) == ["b", "c", "d"], "each is asked for once"


def test_a_missing_reference_is_named() -> None:
    subjects = Subjects(b=schema("B", "d"))
    with pytest.raises(SchemaMissing, match=r"version 1 of subject 'd' \('d'\)"):
        resolve(schema("A", "b"), subjects.version)


def test_a_cycle_is_refused() -> None:
    subjects = Subjects(b=schema("B", "c"), c=schema("C", "b"))
    with pytest.raises(SchemaRefused, match=r"version 1 of subject 'b' \('b'\) refers to itself"):
        resolve(schema("A", "b"), subjects.version)


def test_two_schemas_of_one_name_are_refused() -> None:
    other = RegisteredSchema("AVRO", "C", (SchemaReference("b", "other", 1),))
    subjects = Subjects(b=schema("B"), c=other, other=schema("O"))
    with pytest.raises(SchemaRefused, match="two schemas by the name 'b'"):
        resolve(schema("A", "b", "c"), subjects.version)


def test_a_chain_without_end_is_refused() -> None:
    def version(subject: str, _: int) -> SubjectVersion:
        return SubjectVersion(1, 1, schema("x", f"{subject}x"))

    with pytest.raises(SchemaRefused, match="more than 1000, or 64 deep"):
        resolve(schema("A", "x"), version)


def test_too_many_references_are_refused() -> None:
    names = [f"n{number}" for number in range(1001)]
    subjects = Subjects(**{name: schema("N") for name in names})
    assert len(resolve(schema("A", *names[:1000]), subjects.version).resolved) == 1000
    with pytest.raises(SchemaRefused, match="more than 1000, or 64 deep"):
        resolve(schema("A", *names), subjects.version)


def test_references_that_would_fill_memory_are_refused() -> None:
    large = schema("x" * 30_000_000)
    with pytest.raises(SchemaRefused, match="more than 67,108,864 characters"):
        resolve(schema("A", "b", "c", "d"), Subjects(b=large, c=large, d=large).version)


def test_a_registry_that_goes_away_meanwhile_is_away() -> None:
    def version(*_: object) -> SubjectVersion:
        raise RegistryAway("503")

    with pytest.raises(RegistryAway, match="503"):
        resolve(schema("A", "b"), version)
