"""Subjects of results: their names, registration, look-up alone, and refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.support.registry import ApicurioRegistry, new_subject
from worker.errors import RecordRejected, RegistryAway, RegistryDenied, SchemaRefused
from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.registry.results import AvroResults, result_schema
from worker.registry.schema import RegisteredSchema
from worker.registry.subjects import OutputSchemas, subject_of
from worker.settings import RegistrySettings


class Ids:
    """A registry in memory that may refuse, or be away."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.subjects: dict[str, int] = {}

    def register(self, subject: str, schema: RegisteredSchema) -> int:
        if self.error:
            raise self.error
        return self.subjects.setdefault(subject, 7)

    def look_up(self, subject: str, schema: RegisteredSchema) -> int | None:
        return self.subjects.get(subject)


AVRO, JSON_SCHEMA, PROTOBUF = map(result_schema, ("AVRO", "JSON", "PROTOBUF"))
Make = Callable[..., OutputSchemas]


@pytest.fixture
def outputs(registry: ApicurioRegistry) -> Iterator[Make]:
    """Make the schemas of outputs in the real registry, with these settings."""
    clients = []

    def make(**settings: object) -> OutputSchemas:
        chosen = RegistrySettings(url=registry.url, **settings)  # type: ignore[arg-type]
        clients.append(RegistryClient(chosen, Metrics()))
        return OutputSchemas(clients[-1], chosen)

    yield make
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    ("strategy", "schema", "subject"),
    [
        ("topic_name", AVRO, "t-value"),
        ("record_name", AVRO, "streamlabel.Classification"),
        ("topic_record_name", AVRO, "t-streamlabel.Classification"),
        ("record_name", JSON_SCHEMA, "Classification"),
        ("topic_record_name", PROTOBUF, "t-streamlabel.Classification"),
        ("record_name", RegisteredSchema("AVRO", '{"name": "a.B", "namespace": "c"}'), "a.B"),
        ("record_name", RegisteredSchema("AVRO", '{"name": "B", "namespace": ""}'), "B"),
    ],
)
def test_subjects_are_named_as_by_confluents_serializers(
    strategy: str, schema: RegisteredSchema, subject: str
) -> None:
    """By the topic, by the schema's full name, or by both."""
    assert subject_of(schema, "t", strategy) == subject


@pytest.mark.parametrize(
    "schema",
    [
        RegisteredSchema("JSON", "{}"),
        RegisteredSchema("AVRO", '["null", "string"]'),
        RegisteredSchema("AVRO", '{"type": "string"}'),
    ],
)
def test_a_schema_without_a_name_has_no_subject_by_name(schema: RegisteredSchema) -> None:
    """The setting is named."""
    with pytest.raises(RecordRejected, match=r"subject_name_strategy = 'record_name'"):
        subject_of(schema, "t", "record_name")
    assert subject_of(schema, "t", "topic_name") == "t-value"


def test_a_frame_is_byte_0_and_the_id() -> None:
    """In four bytes, the highest first."""
    ids = Ids()
    ids.subjects["t-value"] = 0x01020304
    assert OutputSchemas(ids, RegistrySettings()).frame(AVRO, "t") == b"\0\1\2\3\4"


def test_a_topic_can_be_added_later() -> None:
    """A pattern may find it under way; it has its own subject."""
    ids = Ids()
    results = AvroResults(OutputSchemas(ids, RegistrySettings()).frame)
    results.add("one")
    results.add("two")
    assert set(ids.subjects) == {"one-value", "two-value"}


def test_a_missing_schema_stops_the_worker_if_it_must_not_register() -> None:
    """The error names subject and setting, and nothing was registered."""
    ids = Ids()
    schemas = OutputSchemas(ids, RegistrySettings(register=False))
    with pytest.raises(SchemaRefused, match=r"'t-value'.*registry.register = true"):
        schemas.frame(AVRO, "t")
    assert ids.subjects == {}
    ids.subjects["t-value"] = 9
    assert schemas.frame(AVRO, "t")[-1] == 9


@pytest.mark.parametrize("error", [RegistryAway("no answer"), RegistryDenied("who are you?")])
def test_other_errors_stay_what_they_are(error: Exception) -> None:
    """An outage is tried again, and a refused sign-in is not the schema's fault."""
    with pytest.raises(type(error)) as raised:
        OutputSchemas(Ids(error), RegistrySettings()).frame(AVRO, "t")
    assert raised.value is error


def test_a_refusal_has_the_registrys_words() -> None:
    """Beside the topic and the subject, and what to do."""
    ids = Ids(SchemaRefused("http://r answers 409: incompatible"))
    with pytest.raises(SchemaRefused) as raised:
        OutputSchemas(ids, RegistrySettings()).frame(AVRO, "t")
    for part in ("topic 't'", "subject 't-value'", "answers 409: incompatible", "compatibility"):
        assert part in str(raised.value)


@pytest.mark.parametrize("later", [RegistryAway("no answer"), RegistryDenied("401")])
def test_an_error_of_the_look_up_does_not_hide_the_refusal(later: Exception) -> None:
    """The words of the refusal say what to change."""

    class Failing(Ids):
        def look_up(self, subject: str, schema: RegisteredSchema) -> int | None:
            raise later

    ids = Failing(SchemaRefused("http://r answers 409: incompatible"))
    with pytest.raises(SchemaRefused, match="answers 409: incompatible"):
        OutputSchemas(ids, RegistrySettings()).frame(AVRO, "t")


def test_a_schema_that_a_read_only_registry_has_is_found() -> None:
    ids = Ids(SchemaRefused("http://r answers 422: the subject is in read-only mode"))
    ids.subjects["t-value"] = 7
    assert OutputSchemas(ids, RegistrySettings()).frame(AVRO, "t") == b"\0\0\0\0\7"


@pytest.mark.parametrize("schema", [AVRO, JSON_SCHEMA, PROTOBUF])
def test_a_real_registry_finds_what_it_has(
    registry: ApicurioRegistry, outputs: Make, schema: RegisteredSchema
) -> None:
    """Registered once; later looked up, by a worker that must not register."""
    topic = new_subject().removesuffix("-value")
    with pytest.raises(SchemaRefused, match=f"does not have.*{topic}-value"):
        outputs(register=False).frame(schema, topic)
    frame = outputs().frame(schema, topic)
    assert outputs().frame(schema, topic) == frame
    assert outputs(register=False).frame(schema, topic) == frame
    assert registry.ask("GET", f"/subjects/{topic}-value/versions") == [1]


def test_a_schema_that_was_registered_by_hand_is_found(
    registry: ApicurioRegistry, outputs: Make
) -> None:
    """White space is no difference."""
    topic = new_subject().removesuffix("-value")
    number = registry.register(f"{topic}-value", json.dumps(json.loads(AVRO.text)))
    frame = outputs(register=False).frame(AVRO, topic)
    assert int.from_bytes(frame[1:], "big") == number


def test_a_real_registry_refuses_an_incompatible_schema(
    registry: ApicurioRegistry, outputs: Make
) -> None:
    """The topic has records of another schema, and the subject's level is BACKWARD."""
    topic = new_subject().removesuffix("-value")
    other = '{"type": "record", "name": "Other", "fields": [{"name": "n", "type": "int"}]}'
    registry.register(f"{topic}-value", other)
    with pytest.raises(SchemaRefused) as raised:
        outputs().frame(AVRO, topic)
    assert "answers 409" in str(raised.value)
    assert f"subject '{topic}-value'" in str(raised.value)
    frame = outputs(subject_name_strategy="topic_record_name").frame(AVRO, topic)
    assert frame[:1] == b"\0"
