"""Answers of any form are a schema, or an error that the store knows."""

from __future__ import annotations

import contextlib
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from worker.errors import RegistryAway, SchemaRefused
from worker.registry.answers import RegistryAnswer, parse, schema_of, whole_number
from worker.registry.schema import RegisteredSchema

MEMBERS = ("schema", "schemaType", "references", "name", "subject", "version", "id", "error_code")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(MEMBERS), inner),
)
NEAR = st.fixed_dictionaries(
    {"schema": st.just("text")},
    optional={"schemaType": st.sampled_from(["AVRO", "JSON", None, 7]), "references": JSON},
)


@example({"schema": "text", "references": 7})
@example({"schema": "text", "references": [{"name": "a", "subject": "b", "version": "c"}]})
@example({"schema": "text", "schemaType": ["AVRO"]})
@given(JSON | NEAR)
def test_any_json_is_a_schema_or_a_known_error(content: Any) -> None:
    answer = RegistryAnswer("http://r", 200, content)
    assert isinstance(answer.error_code, int)
    assert len(answer.words) < 1_100
    with contextlib.suppress(RegistryAway, SchemaRefused):
        assert isinstance(schema_of(answer), RegisteredSchema)
    with contextlib.suppress(RegistryAway):
        assert isinstance(whole_number(answer, "version"), int)


def test_a_servers_message_can_not_write_to_a_terminal() -> None:
    answer = RegistryAnswer("http://r", 409, {"message": "no\x1b[2J\u202e"})
    assert answer.words == "no[U+001B][2J[U+202E]"


@given(st.binary(), st.sampled_from([200, 404, 409, 500]))
def test_any_bytes_are_an_answer_or_a_registry_that_is_away(body: bytes, status: int) -> None:
    with contextlib.suppress(RegistryAway):
        assert parse("http://r", status, body).status == status
