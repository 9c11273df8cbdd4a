"""Asks a schema registry by Confluent's API, which those of other vendors speak too.

https://docs.confluent.io/platform/current/schema-registry/develop/api.html

Owns: `RegistryClient`, and the translation of every answer into a value or an error of our own.
Thread: any; a call waits for the answer.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from worker.clock import Clock, SystemClock
from worker.core.faults import backoff
from worker.core.visible import excerpt
from worker.errors import RegistryAway, RegistryDenied, SchemaRefused
from worker.metrics import Metrics
from worker.registry.answers import LONGEST_WORDS, RegistryAnswer, schema_of, whole_number
from worker.registry.connection import RegistryConnection, SchemaConflict
from worker.registry.schema import RegisteredSchema
from worker.settings import RegistrySettings

_TRIES_BEFORE_CONFLICT: Final = 5
_TYPES: Final = "/schemas/types"
_LARGEST_ID: Final = 2**31 - 1  # the API's ids are Java's `int`


class SubjectVersion(NamedTuple):
    """A version of a subject.

    Attributes:
        id: of its schema; other subjects may have the same schema.
    """

    id: int
    version: int
    schema: RegisteredSchema


class PathMissing(RegistryAway):
    """A 404 that does not come from a schema registry's API, or not from one with this path."""


class RegistryClient:
    """Reads and registers schemas.

    Every method waits at most about `registry.timeout` for each address, and raises:

    * RegistryAway: no address gave a usable answer; the message has the reason of each.
    * RegistryDenied: the sign-in is refused, or a certificate is.
    * SchemaRefused: the registry can't do this with this schema; the message has its words.

    A schema, subject or version that does not exist is None.
    """

    def __init__(
        self, settings: RegistrySettings, metrics: Metrics, clock: Clock | None = None
    ) -> None:
        """Open no connection.

        Raises:
            SettingsError: an address, a TLS file or a proxy of the environment can't be used.
        """
        self._requests = metrics.registry_requests
        self._clock = clock or SystemClock()
        self._connection = RegistryConnection(settings, self._clock)

    def check(self) -> None:
        """Return if a schema registry answers.

        Raises:
            RegistryAway, RegistryDenied: as above.
            SchemaRefused: the address is that of no schema registry.
        """
        answer = self._ask("GET", _TYPES)
        if not self._is_registry(answer):
            raise SchemaRefused(
                f"{answer.address} does not have a schema registry's API: is the path in "
                "registry.url complete? (Apicurio Registry: /apis/ccompat/v7)"
            )

    def schema(self, key: int | str) -> RegisteredSchema | None:
        """Return the schema with an id, or with a GUID; its references are not resolved."""
        if isinstance(key, str):
            answer = self._ask("GET", f"/schemas/guids/{_quoted(key)}")
            if answer.status != 404:
                return schema_of(answer)
            if not _is_missing(answer) and not self._is_registry(self._ask("GET", _TYPES)):
                raise _no_path(answer)
            return None  # a registry without GUIDs does not have this path
        if not 0 <= key <= _LARGEST_ID:
            return None
        found = self._find("GET", f"/schemas/ids/{key}")
        return schema_of(found) if found else None

    def version(self, subject: str, version: int) -> SubjectVersion | None:
        """Return a version of a subject, also a deleted one: others may still refer to it."""
        found = self._find("GET", f"{_versions(subject)}/{version}?deleted=true")
        return _subject_version(found) if found else None

    def look_up(self, subject: str, schema: RegisteredSchema) -> int | None:
        """Return the id of a schema under a subject."""
        found = self._find("POST", f"/subjects/{_quoted(subject)}", _body(schema))
        return whole_number(found, "id") if found else None

    def register(self, subject: str, schema: RegisteredSchema) -> int:
        """Register a schema under a subject, if it is not there yet, and return its id.

        If two workers register schemas under one subject at the same moment, Apicurio Registry
        answers 409 to one of them, as it does for a schema that is not compatible. So a 409 is
        believed after some tries, a second or two later.
        """
        for attempt in range(1, _TRIES_BEFORE_CONFLICT):
            try:
                return self._register(subject, schema)
            except SchemaConflict:
                self._clock.sleep(backoff(attempt))
        return self._register(subject, schema)

    def _register(self, subject: str, schema: RegisteredSchema) -> int:
        found = self._find("POST", _versions(subject), _body(schema))
        if found is None:
            raise RegistryAway(f"the registry did not find subject {subject!r}, and did not add it")
        return whole_number(found, "id")

    def delete(self, subject: str) -> None:
        """Delete a subject with all its versions, if it is there."""
        for which in ("", "?permanent=true"):  # only a deleted subject can be deleted for good
            self._find("DELETE", f"/subjects/{_quoted(subject)}{which}")

    def refusal(self, subject: str, schema: RegisteredSchema) -> str | None:
        """Return why a subject refuses a schema after its latest version, or None.

        Raises:
            PathMissing: this registry does not tell, or the address is that of another server.
        """
        path = f"/compatibility{_versions(subject)}/latest?verbose=true"
        found = self._find("POST", path, _body(schema))
        if found is None or found.content.get("is_compatible") is not False:
            return None  # a subject that is not there takes any schema
        words = found.content.get("messages") or [found.content.get("reason") or "no message"]
        return excerpt(" ".join(" ".join(map(str, words)).split()), LONGEST_WORDS)

    def close(self) -> None:
        """Close the connections."""
        self._connection.close()

    def _find(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> RegistryAnswer | None:
        """Return an answer, or None if what was asked for does not exist.

        A 404 without one of the API's own codes comes from elsewhere: a gateway without a route, or
        a wrong path in `registry.url`. It must not be mistaken for a missing schema.
        """
        answer = self._ask(method, path, body)
        if answer.status != 404:
            return answer
        if _is_missing(answer):
            return None
        raise _no_path(answer)

    @staticmethod
    def _is_registry(answer: RegistryAnswer) -> bool:
        """Return whether an answer to `_TYPES` is that of a schema registry."""
        return answer.status != 404 and isinstance(answer.content, list)

    def _ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> RegistryAnswer:
        try:
            answer = self._connection.ask(method, path, body)
        except (RegistryAway, RegistryDenied, SchemaRefused) as error:
            outcome = "away" if isinstance(error, RegistryAway) else "refused"
            self._requests.labels(outcome).inc()
            raise
        self._requests.labels("not_found" if answer.status == 404 else "answered").inc()
        return answer


def _is_missing(answer: RegistryAnswer) -> bool:
    """Return whether a 404 has one of the API's codes: 40401, 40402 or 40403."""
    return answer.error_code // 100 == 404


def _no_path(answer: RegistryAnswer) -> PathMissing:
    return PathMissing(
        f"{answer.address} answers 404 as a server without this path does, not as a schema "
        "registry: check the path in registry.url, and the gateway before it"
    )


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _versions(subject: str) -> str:
    return f"/subjects/{_quoted(subject)}/versions"


def _body(schema: RegisteredSchema) -> dict[str, Any]:
    body: dict[str, Any] = {"schema": schema.text}
    if schema.type != "AVRO":  # the default, and the only type of old servers
        body["schemaType"] = schema.type
    if schema.references:
        body["references"] = [reference._asdict() for reference in schema.references]
    return body


def _subject_version(answer: RegistryAnswer) -> SubjectVersion:
    return SubjectVersion(
        whole_number(answer, "id"), whole_number(answer, "version"), schema_of(answer)
    )
