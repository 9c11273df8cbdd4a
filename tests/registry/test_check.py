"""`streamlabel check` asks a registry, and changes nothing there."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.registry.stub import AVRO, Asked, Reply, Stub, missing
from tests.support.clocks import HandClock
from tests.support.records import raw
from worker.clock import SystemClock
from worker.errors import RegistryAway, SchemaRefused
from worker.registry.check import check_registry, sample_by_schema
from worker.settings import Settings, load

FRAMED = b"\0\0\0\0\7\4hi"


def settings(url: str, **values: Any) -> Settings:
    given = {path.replace("__", "."): value for path, value in values.items()}
    return load({"registry.url": url, "registry.timeout": 1} | given, environ={}).settings


NO_SUBJECT = missing(40401)


class Subjects:
    """A registry with one subject at most; it may lack the path that tells of compatibility."""

    def __init__(
        self, known: int | None = None, compatibility: Any = None, missing: Reply = NO_SUBJECT
    ) -> None:
        self.known, self.compatibility, self.missing = known, compatibility, missing

    def __call__(self, asked: Asked) -> Reply:
        if asked.path == "/schemas/types":
            return Reply(content=["AVRO"])
        versions = "/subjects/texts.labelled-value/versions"
        if asked.path == f"/compatibility{versions}/latest?verbose=true":
            return Reply(content=self.compatibility) if self.compatibility else self.missing
        assert asked.path == "/subjects/texts.labelled-value", "nothing else, and no registration"
        return Reply(content={"id": self.known}) if self.known else missing(40403)


def check(subjects: Subjects, **values: Any) -> str:
    with Stub(subjects) as stub:
        given = settings(stub.url, **values)
        found = check_registry(given, given.topics.results, HandClock())
        return found.replace(stub.url, "URL")


def test_for_a_framed_input_the_registry_has_to_answer() -> None:
    assert check(Subjects(), input__format="avro") == "URL answers"


def test_a_registry_that_does_not_answer_is_away() -> None:
    with pytest.raises(RegistryAway):
        check_registry(settings("http://127.0.0.1:9", input__format="avro"), (), HandClock())


def test_the_schema_of_results_is_found_under_its_subject() -> None:
    found = check(Subjects(5), output__format="avro")
    assert found == (
        "URL answers; the schema of results is under subject 'texts.labelled-value', with id 5"
    )


@pytest.mark.parametrize("compatibility", [None, {"is_compatible": True}])
def test_the_schema_of_results_would_be_registered(compatibility: Any) -> None:
    found = check(Subjects(compatibility=compatibility), output__format="avro")
    assert "will be registered under subject 'texts.labelled-value'" in found


@pytest.mark.parametrize("reply", [Reply(404, b"Not Found"), missing(404)])
def test_a_registry_that_does_not_tell_of_compatibility_is_no_failure(reply: Reply) -> None:
    found = check(Subjects(missing=reply), output__format="avro")
    assert "will be registered under subject 'texts.labelled-value', if it is compatible" in found
    assert "could not be asked: URL answers 404" in found


@pytest.mark.parametrize(
    "words", [{"messages": ["field x", "is missing"]}, {"reason": "field x\nis missing"}]
)
def test_a_subject_that_would_refuse_the_schema_fails_with_its_words(words: Any) -> None:
    """Confluent's registry has messages, Apicurio a reason."""
    with pytest.raises(SchemaRefused, match=r"field x is missing\. Change the"):
        check(Subjects(compatibility={"is_compatible": False} | words), output__format="avro")


def test_a_schema_that_may_only_be_looked_up_has_to_be_there() -> None:
    with pytest.raises(SchemaRefused, match=r"registry\.register is false"):
        check(Subjects(), output__format="avro", registry__register=False)


def test_enriched_schemas_are_known_with_their_records_only() -> None:
    found = check(Subjects(), input__format="avro", output__format="avro", output__mode="enrich")
    assert found == "URL answers"


def test_records_are_sampled_by_their_schemas() -> None:
    with Stub(Reply(content={"schema": AVRO})) as stub:
        given = settings(stub.url, input__format="avro")
        sample = sample_by_schema(given, [raw(0, FRAMED), raw(1, b"{}")], SystemClock())
    assert (sample.readable, sample.records) == (1, 2)
    assert [asked.path for asked in stub.asked] == ["/schemas/ids/7"]


def test_sampling_registers_no_enriched_schema() -> None:
    with Stub(Reply(content={"schema": AVRO})) as stub:
        more = {"output__format": "avro", "output__mode": "enrich", "input__format": "avro"}
        sample_by_schema(settings(stub.url, **more), [raw(0, FRAMED)], SystemClock())
    assert [asked.method for asked in stub.asked] == ["GET"]


def test_sampling_ends_if_the_registry_is_away() -> None:
    with Stub(Reply(500, {"message": json.dumps("odd")})) as stub:
        given = settings(stub.url, input__format="avro")
        with pytest.raises(RegistryAway):
            sample_by_schema(given, [raw(0, FRAMED)], SystemClock())
