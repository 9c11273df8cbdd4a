"""Reads what a schema registry answers, and refuses what is no answer of one.

Owns: `RegistryAnswer`, and the form of its members.
Thread: any; pure.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, get_args

from pydantic_core import from_json

from worker.core.visible import excerpt
from worker.errors import RegistryAway, SchemaRefused
from worker.registry.schema import RegisteredSchema, SchemaReference, SchemaType

LONGEST_WORDS: Final = 1_000  # characters of a server's message in ours


@dataclass(frozen=True, slots=True)
class RegistryAnswer:
    """A registry's answer.

    Attributes:
        address: who answered, for messages.
        content: its JSON.
    """

    address: str
    status: int
    content: Any

    @property
    def error_code(self) -> int:
        """The API's own code (40403: no such schema), 0 without one."""
        code = self.content.get("error_code") if isinstance(self.content, Mapping) else None
        return code if isinstance(code, int) else 0

    @property
    def words(self) -> str:
        """Its message on one line."""
        message = self.content.get("message") if isinstance(self.content, Mapping) else None
        words = " ".join(str(message or "no message").split())
        return excerpt(words, LONGEST_WORDS)[:LONGEST_WORDS]  # codes are longer than characters

    def member(self, name: str, kind: type[Any]) -> Any:
        """Return a member; raise RegistryAway if it is missing or of another type."""
        value = self.content.get(name) if isinstance(self.content, Mapping) else None
        if not isinstance(value, kind) or isinstance(value, bool):
            raise RegistryAway(f"{self.address} answers without {name!r}: no schema registry does")
        return value


def parse(address: str, status: int, body: bytes) -> RegistryAnswer:
    """Return an answer; raise RegistryAway for a success that is not JSON.

    Args:
        address: who answered.
        status: of the answer.
        body: of it. That of an error may lack its end.
    """
    try:
        content = from_json(body, allow_partial="off" if status < 400 else "trailing-strings")
        return RegistryAnswer(address, status, content)
    except ValueError:
        if status < 400:
            raise RegistryAway(
                f"{address} answers {status} with something that is not JSON: is a proxy or a "
                "sign-in page in front of it?"
            ) from None
        return RegistryAnswer(address, status, None)


def whole_number(answer: RegistryAnswer, name: str) -> int:
    """Return a member; raise RegistryAway if it is not a number."""
    return int(answer.member(name, int))


def schema_of(answer: RegistryAnswer) -> RegisteredSchema:
    """Return the schema of an answer.

    Raises:
        RegistryAway: the answer has none.
        SchemaRefused: it is of an unknown type.
    """
    text = answer.member("schema", str)
    type_ = answer.content.get("schemaType") or "AVRO"
    if type_ not in get_args(SchemaType):
        raise SchemaRefused(f"its type is {type_!r:.40}, not AVRO, JSON or PROTOBUF")
    listed = answer.member("references", list) if answer.content.get("references") else ()
    return RegisteredSchema(
        cast(SchemaType, type_), text, tuple(_reference(answer, one) for one in listed)
    )


def _reference(answer: RegistryAnswer, listed: Any) -> SchemaReference:
    one = RegistryAnswer(answer.address, answer.status, listed)
    return SchemaReference(
        one.member("name", str), one.member("subject", str), whole_number(one, "version")
    )
