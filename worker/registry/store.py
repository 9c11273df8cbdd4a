"""The schemas that records name, asked for on a thread of their own.

A record's thread never waits for the registry. It finds a schema in memory, or it is told to come
back when the schema is settled: compiled, or known to be unusable or missing.

While the registry is away, nothing is settled: a schema is asked for until an answer comes. A
missing schema is asked for again before that is believed, because a registry's nodes learn of a new
schema one after the other, and it is believed for a minute only.

Owns: `SchemaStore`, its thread "registry" and its cache.
Thread: the poll thread calls it; "registry" asks, resolves references and compiles.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

import math
import subprocess
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, NamedTuple, TypeAlias, TypeVar, cast

from schemas.dead_letter import DeadLetterReason
from worker.clock import Clock
from worker.core.faults import backoff
from worker.core.formats.format import SchemaPending
from worker.errors import (
    RecordRejected,
    RegistryAway,
    RegistryDenied,
    SchemaRefused,
    StageCrashed,
    StreamlabelError,
)
from worker.logs import get_logger
from worker.metrics import Metrics
from worker.registry.cache import Entry, SchemaCache
from worker.registry.client import RegistryClient
from worker.registry.outage import Outage
from worker.registry.references import SchemaMissing, resolve
from worker.registry.schema import RegisteredSchema

Compiled = TypeVar("Compiled")

_PAUSES_BEFORE_MISSING_S: Final = (1.0, 2.0)  # between the tries after which a 404 is believed
_BELIEVED_S: Final = 60.0  # a missing schema, or one that the registry refuses
_FORGOTTEN_S: Final = 60.0  # after which a schema that no record waits for is not asked for
_JOIN_S: Final = 1.0
# A full disk, no memory, no further process: another time, the same schema can be used.
_MACHINE: Final = (OSError, MemoryError, subprocess.SubprocessError)

_log = get_logger(__name__)


class _Enriched(NamedTuple):
    """The key of a schema with the result added, for the records of one input topic."""

    schema: int | str
    topic: str

    def __str__(self) -> str:
        return str(self.schema)


_Key: TypeAlias = int | str | _Enriched


@dataclass(slots=True)
class _Request:
    """A schema that a record waits for.

    Attributes:
        due: when to ask next; seconds of the monotonic clock.
        wanted: when a record last asked for it.
        failures, misses: tries without an answer, and answers that it is missing.
    """

    due: float
    wanted: float
    failures: int = 0
    misses: int = 0


class SchemaStore(Generic[Compiled]):
    """Compiled schemas by key: an id, or a GUID as a string.

    Args:
        client: asks the registry; whoever made it closes it.
        compile_schema: raises RecordRejected for a schema that can't be used.
        size: most schemas kept in memory; fewer if their texts are long.
        enrich: registers the schema of an input topic's records with a result added, and returns
            their frame. Raises RecordRejected, or an error of `RegistryClient`; a SchemaRefused
            stops the worker, because all records of the schema would become dead letters.
    """

    def __init__(
        self,
        client: RegistryClient,
        compile_schema: Callable[[RegisteredSchema], Compiled],
        *,
        size: int,
        metrics: Metrics,
        clock: Clock,
        enrich: Callable[[RegisteredSchema, str], bytes] | None = None,
    ) -> None:
        self._client, self._compile, self._enrich = client, compile_schema, enrich
        self._clock, self._gauge = clock, metrics.registry_schemas
        self._outage = Outage(metrics, clock)
        self._changed = threading.Condition()
        self._cache: SchemaCache[Compiled] = SchemaCache(size)
        self._requests: dict[_Key, _Request] = {}
        self._missing: deque[float] = deque()  # when schemas were believed to be missing
        self._crash: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="registry", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def lookup(self, key: int | str) -> Compiled:
        """Return a schema without waiting.

        Raises:
            RecordRejected: the registry does not have it, or it can't be used.
            SchemaPending: it is being asked for; come back when it is `settled`.
            StageCrashed: the thread has ended with an error.
        """
        return cast(Compiled, self._entry(key).compiled)

    def enriched_frame(self, key: int | str, topic: str) -> bytes | None:
        """Return the frame of a record with the result added; None without `enrich`.

        Args:
            key: of the record's schema.
            topic: of the record: each may have an output of its own.

        Raises:
            RecordRejected, SchemaPending, StageCrashed: as `lookup`.
            SchemaRefused: the registry refuses the enriched schema.
        """
        return self._entry(_Enriched(key, topic)).enriched if self._enrich else None

    def settled(self, key: Any) -> bool:
        """Return whether `lookup` has an answer, after it raised SchemaPending."""
        with self._changed:
            request = self._requests.get(key)
            if request is None or self._crash:
                return True
            request.wanted = self._clock.monotonic()
            return False

    def away(self) -> str | None:
        """Return why the registry does not answer, or None while no record waits for it."""
        return self._outage.reason

    def close(self) -> None:
        """End the thread, without waiting long for a request in progress."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(_JOIN_S)

    def step(self) -> float:
        """Ask for the schema that is due, if one is; return the seconds until the next one is.

        The thread does this in a loop, with a wait between. Tests do without the thread.
        """
        with self._changed:
            key, pause = self._next()
        if key is not None:
            self._work(key)
        return pause

    def _entry(self, key: _Key) -> Entry[Compiled]:
        now = self._clock.monotonic()
        with self._changed:
            if isinstance(self._crash, SchemaRefused):
                raise self._crash
            if self._crash:
                raise StageCrashed.by(self._crash, "the registry thread crashed")
            entry = self._cache.get(key, now)
            if entry is None:
                self._requests.setdefault(key, _Request(now, now)).wanted = now
                self._changed.notify()
                raise SchemaPending(key)
        if entry.rejection:
            raise RecordRejected(entry.rejection.reason, entry.rejection.message)
        return entry

    def _next(self) -> tuple[_Key | None, float]:
        """Return the key to ask for now, or the seconds until one is due."""
        now = self._clock.monotonic()
        for key, request in list(self._requests.items()):
            if now - request.wanted > _FORGOTTEN_S:  # its partition went to another worker
                del self._requests[key]
        if not self._requests:
            self._outage.forget()
            return None, math.inf
        key = min(self._requests, key=lambda one: self._requests[one].due)
        pause = self._requests[key].due - now
        return (None, pause) if pause > 0 else (key, 0.0)

    def _work(self, key: _Key) -> None:
        try:
            entry = self._ask(key)
        except (RegistryAway, RegistryDenied) as error:
            self._postpone(key, error)
        except SchemaMissing as error:
            self._answered()
            self._doubt(key, error)
        else:
            self._answered()
            self._settle(key, entry)

    def _ask(self, key: _Key) -> Entry[Compiled]:
        """Ask for a schema and prepare it.

        Raises:
            RegistryAway, RegistryDenied: no answer, or this machine could not prepare the schema.
            SchemaMissing: the registry does not have it, or one that it refers to.
            SchemaRefused: it refuses the enriched schema.
        """
        try:
            schema = self._schema(key.schema if isinstance(key, _Enriched) else key)
        except RegistryDenied:
            raise
        except SchemaRefused as error:
            reason = DeadLetterReason.UNUSABLE_SCHEMA
            return self._rejected(RecordRejected(reason, f"schema {key}: {error}"), _BELIEVED_S)
        try:
            return self._guarded(key, schema)
        except RecordRejected as rejection:
            message = f"schema {key}: {rejection.message}"
            return self._rejected(RecordRejected(rejection.reason, message), math.inf)

    def _schema(self, key: int | str) -> RegisteredSchema:
        schema = self._client.schema(key)
        if schema is None:
            raise SchemaMissing("it is not in the registry")
        return resolve(schema, self._client.version)

    def _guarded(self, key: _Key, schema: RegisteredSchema) -> Entry[Compiled]:
        """Prepare a schema; one that breaks what prepares it must not stop the worker."""
        try:
            return self._prepared(key, schema)
        except StreamlabelError:
            raise
        except _MACHINE as error:
            cause = f"{type(error).__name__}: {error}".removesuffix(": ")
            raise RegistryAway(f"this machine can't prepare schema {key} ({cause})") from error
        except Exception as error:
            _log.warning("a schema breaks its compiler", exc_info=True)
            cause = f"it can't be compiled ({type(error).__name__})"
            raise RecordRejected(DeadLetterReason.UNUSABLE_SCHEMA, cause) from error

    def _prepared(self, key: _Key, schema: RegisteredSchema) -> Entry[Compiled]:
        compiled, enriched, characters = None, None, 0
        if isinstance(key, _Enriched) and self._enrich:
            enriched = self._enrich(schema, key.topic)
        else:
            compiled = self._compile(schema)
            characters = len(schema.text) + sum(map(len, schema.resolved.values()))
        return Entry(compiled, enriched, None, math.inf, self._clock.monotonic(), characters)

    def _rejected(self, rejection: RecordRejected, lasts: float) -> Entry[Compiled]:
        return Entry(None, None, rejection, lasts, self._clock.monotonic())

    def _postpone(self, key: _Key, error: Exception) -> None:
        with self._changed:
            request = self._requests[key]
            request.failures += 1
            request.due = self._clock.monotonic() + backoff(request.failures, base=0.2)
            self._outage.begin(str(error), len(self._requests))

    def _answered(self) -> None:
        """Ask for all others at once when an outage ends."""
        with self._changed:
            if self._outage.end():
                for request in self._requests.values():
                    request.due = min(request.due, self._clock.monotonic())

    def _doubt(self, key: _Key, error: SchemaMissing) -> None:
        """Ask again for a missing schema, a few times, then believe it.

        The more schemas were missing in the last minute, the shorter the pauses: a producer of
        broken records must not stop its partition for seconds at each of them.
        """
        now = self._clock.monotonic()
        while self._missing and now - self._missing[0] > _BELIEVED_S:
            self._missing.popleft()
        with self._changed:
            request = self._requests[key]
            if request.misses < len(_PAUSES_BEFORE_MISSING_S):
                pause = _PAUSES_BEFORE_MISSING_S[request.misses] / (1 + len(self._missing))
                request.due = now + pause
                request.misses += 1
                return
        self._missing.append(now)
        rejection = RecordRejected(DeadLetterReason.UNKNOWN_SCHEMA, f"schema {key}: {error}")
        self._settle(key, self._rejected(rejection, _BELIEVED_S))

    def _settle(self, key: _Key, entry: Entry[Compiled]) -> None:
        with self._changed:
            del self._requests[key]
            self._cache.put(key, entry)
            self._gauge.set(len(self._cache))

    def _run(self) -> None:
        try:
            while (key := self._wait_for_key()) is not None:
                self._work(key)
        except BaseException as error:  # noqa: BLE001 - raised on the poll thread
            with self._changed:
                self._crash = error

    def _wait_for_key(self) -> _Key | None:
        """Wait for a key that is due, and return it, or None if the store closes."""
        with self._changed:
            while not self._closing:
                key, pause = self._next()
                if key is not None:
                    return key
                self._changed.wait(None if math.isinf(pause) else pause)
        return None
