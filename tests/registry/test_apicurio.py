"""Client and store on a real registry, which is killed, frozen, and started again."""

from __future__ import annotations

import base64
import contextlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from google.protobuf.descriptor_pb2 import FileDescriptorProto

from tests.support.registry import ApicurioRegistry, new_subject, own_registry
from tests.support.workers import wait_until
from worker.clock import SystemClock
from worker.core.formats.format import SchemaPending
from worker.errors import RecordRejected, RegistryAway, RegistryDenied, SchemaRefused
from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.registry.references import resolve
from worker.registry.schema import RegisteredSchema, SchemaReference
from worker.registry.store import SchemaStore
from worker.settings import RegistrySettings

AVRO = '{"type": "record", "name": "Post", "fields": [{"name": "text", "type": "string"}]}'
PROTO = 'syntax = "proto3";\nimport "a.proto";\nmessage Post { Author author = 1; }\n'
AUTHOR = 'syntax = "proto3";\nmessage Author { string name = 1; }\n'
JSON = '{"$schema": "http://json-schema.org/draft-07/schema#", "type": "object"}'
SCHEMA = RegisteredSchema("AVRO", AVRO)


@contextlib.contextmanager
def client(registry: ApicurioRegistry, **values: Any) -> Iterator[RegistryClient]:
    settings = RegistrySettings(url=registry.url, **{"timeout": 30.0} | values)
    with contextlib.closing(RegistryClient(settings, Metrics())) as made:
        yield made


@contextlib.contextmanager
def store(registry: ApicurioRegistry, timeout: float = 30.0) -> Iterator[SchemaStore[str]]:
    """A running store whose compiled schemas are their names."""

    def name(schema: RegisteredSchema) -> str:
        return str(json.loads(schema.text)["name"])

    with client(registry, timeout=timeout) as asking:
        made = SchemaStore(asking, name, size=10, metrics=Metrics(), clock=SystemClock())
        made.start()
        with contextlib.closing(made):
            yield made


def wait_for(store: SchemaStore[str], key: int) -> str:
    with contextlib.suppress(SchemaPending):
        return store.lookup(key)
    wait_until(lambda: store.settled(key), 60, f"schema {key} is settled")
    return store.lookup(key)


def named(name: str) -> str:
    return AVRO.replace("Post", name)


@pytest.mark.parametrize("schema", [SCHEMA, RegisteredSchema("JSON", JSON)])
def test_a_schema_is_registered_found_and_read(
    registry: ApicurioRegistry, schema: RegisteredSchema
) -> None:
    subject = new_subject()
    with client(registry) as asking:
        asking.check()
        assert asking.version(subject, 1) is None
        assert asking.look_up(subject, schema) is None
        key = asking.register(subject, schema)
        assert key == asking.register(subject, schema) == asking.look_up(subject, schema)
        first = asking.version(subject, 1)
        assert first is not None
        assert (first.id, first.version) == (key, 1)
        assert first.schema == asking.schema(key) == schema


def test_references_are_resolved(registry: ApicurioRegistry) -> None:
    author, post = new_subject(), new_subject()
    registry.register(author, AUTHOR, "PROTOBUF")
    key = registry.register(post, PROTO, "PROTOBUF", [("a.proto", author, 1)])
    with client(registry) as asking:
        schema = asking.schema(key)
        assert schema is not None
        assert schema.references == (SchemaReference("a.proto", author, 1),)
        resolved = resolve(schema, asking.version)
    assert resolved.resolved == {"a.proto": AUTHOR}


def test_a_protobuf_schema_of_another_client_is_its_descriptor(registry: ApicurioRegistry) -> None:
    """confluent-kafka registers Protobuf as base64, and the registry answers what it was given."""
    described = FileDescriptorProto(name="post.proto", syntax="proto3")
    described.message_type.add(name="Post")
    text = base64.b64encode(described.SerializeToString()).decode()
    other = SchemaRegistryClient({"url": registry.url})
    key = other.register_schema(new_subject(), Schema(text, "PROTOBUF"))
    with client(registry) as asking:
        schema = asking.schema(key)
    assert schema is not None
    assert schema.type == "PROTOBUF"
    assert FileDescriptorProto.FromString(base64.b64decode(schema.text)) == described


def test_the_registry_refuses_in_its_own_words(registry: ApicurioRegistry) -> None:
    subject = new_subject()
    with client(registry) as asking:
        asking.register(subject, SCHEMA)
        registry.ask("PUT", f"/config/{subject}", {"compatibility": "BACKWARD"})
        with pytest.raises(SchemaRefused, match=r"409: .*INT not compatible"):
            asking.register(subject, RegisteredSchema("AVRO", '"int"'))
        with pytest.raises(SchemaRefused, match="answers 422"):
            asking.register(new_subject(), RegisteredSchema("AVRO", '{"type": "nothing"}'))


def test_the_registry_tells_beforehand_what_it_would_refuse(registry: ApicurioRegistry) -> None:
    subject = new_subject()
    with client(registry) as asking:
        assert asking.refusal(subject, SCHEMA) is None, "a subject that is not there"
        asking.register(subject, SCHEMA)
        registry.ask("PUT", f"/config/{subject}", {"compatibility": "BACKWARD"})
        assert asking.refusal(subject, SCHEMA) is None
        refusal = asking.refusal(subject, RegisteredSchema("AVRO", '"int"'))
    assert refusal is not None
    assert "INT not compatible" in refusal


def test_what_the_registry_does_not_have_is_none(registry: ApicurioRegistry) -> None:
    with client(registry) as asking:
        assert asking.schema(2**31 - 1) is None
        assert asking.schema("6a1d7c9e-0f57-4a0b-8a14-6e2c7b0f3d11") is None
        assert asking.version(new_subject(), 1) is None


def test_a_path_that_is_not_the_registrys_is_named(registry: ApicurioRegistry) -> None:
    settings = RegistrySettings(url=registry.url.removesuffix("/ccompat/v7"), timeout=30)
    with contextlib.closing(RegistryClient(settings, Metrics())) as asking:
        with pytest.raises(SchemaRefused, match=r"is the path in registry\.url complete"):
            asking.check()
        with pytest.raises(RegistryAway, match=r"check the path in registry\.url"):
            asking.schema(1)


def test_a_schema_of_5_mb_is_registered_and_read(registry: ApicurioRegistry) -> None:
    fields = [{"name": f"f{n}", "type": "string", "doc": "d" * 5_000} for n in range(1_000)]
    text = json.dumps({"type": "record", "name": "Large", "fields": fields})
    with client(registry) as asking:
        key = asking.register(new_subject(), RegisteredSchema("AVRO", text))
        schema = asking.schema(key)
    assert schema is not None
    assert len(schema.text) > 5_000_000


def test_tls_with_the_registrys_authority() -> None:
    with own_registry(tls=True) as registry:
        key = registry.register(new_subject(), AVRO)
        with client(registry, ssl_cafile=registry.ca) as asking:
            asking.check()
            assert asking.schema(key) == SCHEMA
        with client(registry) as asking, pytest.raises(RegistryDenied, match="not trusted"):
            asking.check()


def test_schemas_are_read_again_after_the_registry_was_killed(
    breakable_registry: ApicurioRegistry,
) -> None:
    registry = breakable_registry
    known, new = (registry.register(new_subject(), named(name)) for name in ("Known", "New"))
    with store(registry) as schemas:
        assert wait_for(schemas, known) == "Known"
        registry.kill()
        with pytest.raises(SchemaPending):
            schemas.lookup(new)
        wait_until(lambda: schemas.away() is not None, 60, "it notices")
        assert "refused" in str(schemas.away())
        assert schemas.lookup(known) == "Known"
        assert not schemas.settled(new)
        registry.start()
        assert wait_for(schemas, new) == "New"
        assert schemas.away() is None


def test_schemas_are_read_again_after_the_registry_hung(
    breakable_registry: ApicurioRegistry,
) -> None:
    registry = breakable_registry
    known, new = (registry.register(new_subject(), named(name)) for name in ("Known", "New"))
    with store(registry, timeout=1.0) as schemas:
        assert wait_for(schemas, known) == "Known"
        registry.freeze()
        with pytest.raises(SchemaPending):
            schemas.lookup(new)
        wait_until(lambda: schemas.away() is not None, 60, "it notices")
        assert "does not answer within 1 s" in str(schemas.away())
        assert schemas.lookup(known) == "Known"
        assert not schemas.settled(new)
        registry.thaw()
        assert wait_for(schemas, new) == "New"
        assert schemas.away() is None


def test_a_missing_schema_is_rejected_in_the_end(registry: ApicurioRegistry) -> None:
    with store(registry) as schemas:
        with pytest.raises(RecordRejected, match="schema 2147483647: it is not in the registry"):
            wait_for(schemas, 2**31 - 1)
        assert schemas.away() is None


def test_workers_that_register_at_the_same_moment_all_succeed(registry: ApicurioRegistry) -> None:
    """The registry answers 409 to one of two, as it does for a schema that is not compatible."""
    names = [f"field_{n}" for n in range(4)]
    barrier, registered = threading.Barrier(len(names)), Counter[str]()

    def work(subject: str, name: str) -> None:
        field = {"name": name, "type": "string", "default": ""}
        schema = json.dumps({"type": "record", "name": "Post", "fields": [field]})
        with client(registry) as asking:
            barrier.wait()
            if asking.register(subject, RegisteredSchema("AVRO", schema)):
                registered[name] += 1

    for _ in range(10):
        subject = new_subject()
        with ThreadPoolExecutor(len(names)) as pool:
            list(pool.map(work, [subject] * len(names), names))
    assert registered == dict.fromkeys(names, 10)
