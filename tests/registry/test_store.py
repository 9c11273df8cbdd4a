"""The store of schemas: records wait for a schema, never for the registry."""

from __future__ import annotations

import contextlib
import errno
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
import structlog

from schemas.dead_letter import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.workers import wait_until
from worker.core.formats.format import SchemaPending
from worker.errors import (
    RecordRejected,
    RegistryAway,
    RegistryDenied,
    SchemaRefused,
    StageCrashed,
    StreamlabelError,
)
from worker.metrics import Metrics
from worker.registry.client import SubjectVersion
from worker.registry.schema import RegisteredSchema, SchemaReference
from worker.registry.store import SchemaStore

AWAY = RegistryAway("http://r answers 503: no message")


def schema(text: str) -> RegisteredSchema:
    return RegisteredSchema("AVRO", text)


class FakeClient:
    """A registry of which a test sets what it answers.

    Attributes:
        schemas: by key; an error is raised.
        away: raised by every request while it is set.
        asked: the keys, in order.
    """

    def __init__(self) -> None:
        self.schemas: dict[int | str, RegisteredSchema | StreamlabelError] = {}
        self.versions: dict[str, RegisteredSchema] = {}
        self.away: Exception | None = None
        self.asked: list[int | str] = []

    def schema(self, key: int | str) -> RegisteredSchema | None:
        self.asked.append(key)
        if self.away:
            raise self.away
        found = self.schemas.get(key)
        if isinstance(found, StreamlabelError):
            raise found
        return found

    def version(self, subject: str, version: int) -> SubjectVersion | None:
        found = self.versions.get(subject)
        return SubjectVersion(1, version, found) if found else None


class Rig:
    """A store without its thread, and all around it."""

    def __init__(self, size: int = 10, **options: Any) -> None:
        self.client, self.clock, self.metrics = FakeClient(), HandClock(), Metrics()
        options = {"compile_schema": lambda one: one.text.upper()} | options
        client: Any = self.client
        self.store: SchemaStore[str] = SchemaStore(
            client, size=size, metrics=self.metrics, clock=self.clock, **options
        )

    def pending(self, *keys: int | str) -> None:
        """Look schemas up that are not known yet."""
        for key in keys:
            with pytest.raises(SchemaPending) as pending:
                self.store.lookup(key)
            assert pending.value.schema == key
            assert not self.store.settled(key)

    def step(self, seconds: float = 0.0) -> float:
        """Let time pass, and do what is due then."""
        self.clock.now += seconds
        return self.store.step()

    def rejection(self, key: int | str) -> RecordRejected:
        with pytest.raises(RecordRejected) as rejected:
            self.store.lookup(key)
        return rejected.value

    def gauge(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(f"streamlabel_registry_{name}") or 0.0


def test_a_schema_is_asked_for_once_and_then_known() -> None:
    rig = Rig()
    rig.client.schemas[7] = schema("a")
    rig.pending(7, 7)
    rig.step()
    assert rig.store.settled(7)
    assert (rig.store.lookup(7), rig.store.enriched_frame(7, "in")) == ("A", None)
    rig.step(1000)
    assert rig.client.asked == [7]
    assert rig.gauge("schemas") == 1


def test_a_guid_is_a_key_as_well() -> None:
    rig = Rig()
    rig.client.schemas["e4a7"] = schema("a")
    rig.pending("e4a7")
    rig.step()
    assert rig.store.lookup("e4a7") == "A"


def test_references_are_resolved_before_a_schema_is_compiled() -> None:
    rig = Rig(compile_schema=lambda one: f"{one.text}+{one.resolved['b']}")
    rig.client.versions["b"] = schema("B")
    rig.client.schemas[7] = RegisteredSchema("AVRO", "A", (SchemaReference("b", "b", 1),))
    rig.pending(7)
    rig.step()
    assert rig.store.lookup(7) == "A+B"


def test_while_the_registry_is_away_known_schemas_are_read_and_others_wait() -> None:
    rig = Rig()
    rig.client.schemas = {1: schema("a"), 2: schema("b"), 3: schema("c")}
    rig.pending(1)
    rig.step()
    rig.client.away = AWAY
    rig.pending(2, 3)
    for _ in range(50):
        rig.step(10)
        assert not rig.store.settled(2)
        assert not rig.store.settled(3)
        assert rig.store.lookup(1) == "A"
    assert rig.store.away() == str(AWAY)
    assert rig.gauge("away") == 1
    rig.client.away = None
    rig.step(10)
    assert rig.store.away() is None
    assert rig.gauge("away") == 0
    rig.step()
    assert (rig.store.lookup(2), rig.store.lookup(3)) == ("B", "C"), "the other one at once"


def test_tries_become_rarer_to_one_in_ten_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda _, most: most)  # the jitter
    rig = Rig()
    rig.client.away = AWAY
    rig.pending(7)
    pauses = []
    for _ in range(9):
        rig.step(rig.store.step())
        pauses.append(rig.store.step())
        rig.store.settled(7)
    assert pauses == pytest.approx([0.4, 0.8, 1.6, 3.2, 6.4, 10, 10, 10, 10])


def test_a_schema_that_fails_alone_does_not_stop_others() -> None:
    """The registry answers 500 for it."""
    rig = Rig()
    rig.client.schemas = {1: AWAY, 2: schema("b"), 3: schema("c")}
    rig.pending(1)
    rig.step()
    for key, compiled in ((2, "B"), (3, "C")):
        rig.pending(key)
        rig.step()
        rig.step()
        assert rig.store.lookup(key) == compiled
    assert not rig.store.settled(1)
    assert rig.store.away() == str(AWAY)


@pytest.mark.parametrize("denied", [RegistryDenied("refuses registry.token (401)")])
def test_a_sign_in_refused_under_way_waits_for_an_operator(denied: RegistryDenied) -> None:
    """Credentials that were rotated must neither stop the worker nor reject its records."""
    rig = Rig()
    rig.client.schemas[7], rig.client.away = schema("a"), denied
    rig.pending(7)
    rig.step()
    assert not rig.store.settled(7)
    assert rig.store.away() == str(denied)
    rig.client.away = None
    rig.step(10)
    assert rig.store.lookup(7) == "A"


def test_a_missing_schema_is_asked_for_again_before_it_is_believed() -> None:
    """A node of the registry that is late must not make a record a dead letter."""
    rig = Rig()
    rig.pending(7)
    rig.step()
    assert rig.step() == pytest.approx(1.0)
    assert not rig.store.settled(7)
    rig.step(1.0)
    rig.client.schemas[7] = schema("a")
    rig.step(2.0)
    assert rig.store.lookup(7) == "A"


def test_a_schema_that_stays_missing_is_believed_for_a_minute() -> None:
    rig = Rig()
    rig.pending(7)
    for pause in (0.0, 1.0, 2.0):
        assert not rig.store.settled(7)
        rig.step(pause)
    assert rig.store.settled(7)
    rejection = rig.rejection(7)
    assert rejection.reason == DeadLetterReason.UNKNOWN_SCHEMA
    assert rejection.message == "schema 7: it is not in the registry"
    rig.clock.now += 59
    assert rig.rejection(7) is not rejection
    assert rig.client.asked == [7, 7, 7]
    rig.client.schemas[7] = schema("a")
    rig.clock.now += 1
    rig.pending(7)
    rig.step()
    assert rig.store.lookup(7) == "A"


def test_a_missing_reference_is_an_unknown_schema() -> None:
    rig = Rig()
    rig.client.schemas[7] = RegisteredSchema("AVRO", "A", (SchemaReference("b", "b", 1),))
    rig.pending(7)
    for _ in range(3):
        rig.step(2.0)
    assert rig.rejection(7).reason == DeadLetterReason.UNKNOWN_SCHEMA
    assert "version 1 of subject 'b'" in rig.rejection(7).message


def test_an_outage_between_does_not_count_as_missing() -> None:
    rig = Rig()
    rig.pending(7)
    rig.step()
    rig.client.away = AWAY
    for _ in range(10):
        rig.step(10)
        assert not rig.store.settled(7)
    assert rig.store.away() == str(AWAY)


def test_many_missing_schemas_do_not_stop_a_partition_for_long() -> None:
    """A producer of broken records, each with another id: one record waits at a time."""
    rig = Rig()
    start = rig.clock.now
    for key in range(1000):
        rig.pending(key)
        while not rig.store.settled(key):
            rig.clock.now += rig.store.step()
    assert rig.clock.now - start < 60
    rig.clock.now += 100
    rig.pending(2000)
    rig.step()
    assert rig.step() == pytest.approx(1.0), "after a quiet minute, a schema is doubted again"


def refuse(error: Exception) -> Callable[..., Any]:
    def raise_it(*_: object) -> Any:
        raise error

    return raise_it


def test_a_schema_that_does_not_compile_is_unusable_for_good() -> None:
    rejected = RecordRejected(DeadLetterReason.UNUSABLE_SCHEMA, "no field 'x'")
    rig = Rig(compile_schema=refuse(rejected))
    rig.client.schemas[7] = schema("a")
    rig.pending(7)
    rig.step()
    rig.clock.now += 10_000
    assert rig.rejection(7).reason == DeadLetterReason.UNUSABLE_SCHEMA
    assert rig.rejection(7).message == "schema 7: no field 'x'"


def test_a_schema_that_breaks_its_compiler_is_unusable_and_the_thread_goes_on() -> None:
    rig = Rig(compile_schema=refuse(RecursionError("too deep")))
    rig.client.schemas[7] = schema("a")
    rig.pending(7)
    rig.step()
    assert rig.rejection(7).reason == DeadLetterReason.UNUSABLE_SCHEMA
    assert rig.rejection(7).message == "schema 7: it can't be compiled (RecursionError)"


@pytest.mark.parametrize("prepares", ["compile_schema", "enrich"])
@pytest.mark.parametrize(
    "fault",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        MemoryError(),
        subprocess.TimeoutExpired("protoc", 120),
    ],
)
def test_a_fault_of_the_machine_is_no_fault_of_the_schema(prepares: str, fault: Exception) -> None:
    """Its records wait, and are read once there is room again."""
    outcomes: list[Any] = [fault, fault, b"done"]

    def prepare(*_: object) -> Any:
        outcome = outcomes.pop(0)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    rig = Rig(**{prepares: prepare})
    rig.client.schemas[7] = schema("a")
    lookup: Callable[[], Any] = {
        "compile_schema": lambda: rig.store.lookup(7),
        "enrich": lambda: rig.store.enriched_frame(7, "in"),
    }[prepares]
    for _ in range(2):
        with pytest.raises(SchemaPending) as pending:
            lookup()
        rig.step(10)
        assert not rig.store.settled(pending.value.schema)
        assert f"can't prepare schema 7 ({type(fault).__name__}" in str(rig.store.away())
    rig.step(10)
    assert lookup() == b"done"
    assert rig.store.away() is None


def test_a_schema_that_breaks_its_enrichment_is_unusable_and_the_thread_goes_on() -> None:
    rig = Rig(enrich=refuse(OverflowError("too large")))
    rig.client.schemas[7] = schema("a")
    with pytest.raises(SchemaPending):
        rig.store.enriched_frame(7, "in")
    rig.step()
    with pytest.raises(RecordRejected, match=r"schema 7: .* \(OverflowError\)"):
        rig.store.enriched_frame(7, "in")


def test_a_schema_that_the_registry_can_not_give_is_unusable_for_a_minute() -> None:
    rig = Rig()
    rig.client.schemas[7] = SchemaRefused("the answer is larger than 3 bytes")
    rig.pending(7)
    rig.step()
    assert rig.rejection(7).reason == DeadLetterReason.UNUSABLE_SCHEMA
    assert rig.rejection(7).message == "schema 7: the answer is larger than 3 bytes"
    rig.clock.now += 60
    rig.pending(7)


def test_a_result_is_added_once_the_enriched_schema_is_registered() -> None:
    """For each topic: it may have an output of its own."""
    asked: list[str] = []
    frames: list[bytes | Exception] = [
        AWAY,
        RegistryDenied("401"),
        b"\0\0\0\0\x09",
        b"\0\0\0\0\x0a",
    ]

    def enrich(_: RegisteredSchema, topic: str) -> bytes:
        asked.append(topic)
        frame = frames.pop(0)
        if isinstance(frame, Exception):
            raise frame
        return frame

    rig = Rig(enrich=enrich)
    rig.client.schemas[7] = schema("a")
    rig.pending(7)
    rig.step()
    assert rig.store.lookup(7) == "A"
    with pytest.raises(SchemaPending) as pending:
        rig.store.enriched_frame(7, "in")
    for _ in range(2):
        rig.step(10)
        assert not rig.store.settled(pending.value.schema)
        assert rig.store.away()
    rig.step(10)
    assert rig.store.settled(pending.value.schema)
    assert rig.store.enriched_frame(7, "in") == b"\0\0\0\0\x09"
    assert rig.store.away() is None
    with pytest.raises(SchemaPending):
        rig.store.enriched_frame(7, "more")
    rig.step()
    assert rig.store.enriched_frame(7, "more") == b"\0\0\0\0\x0a"
    assert asked == ["in", "in", "in", "more"]


def test_a_schema_that_has_no_place_for_the_result_rejects_its_records() -> None:
    rig = Rig(enrich=refuse(RecordRejected("unusable_schema", "no record")))
    rig.client.schemas[7] = schema("a")
    with pytest.raises(SchemaPending):
        rig.store.enriched_frame(7, "in")
    rig.step()
    with pytest.raises(RecordRejected, match="schema 7: no record"):
        rig.store.enriched_frame(7, "in")


def test_an_enriched_schema_that_is_refused_stops_the_worker_with_the_words() -> None:
    """All records of that schema would become dead letters."""
    rig = Rig(enrich=refuse(SchemaRefused("409: incompatible")))
    rig.client.schemas[7] = schema("a")
    rig.store.start()
    try:
        with pytest.raises(SchemaPending) as pending:
            rig.store.enriched_frame(7, "in")
        wait_until(lambda: rig.store.settled(pending.value.schema))
        with pytest.raises(SchemaRefused, match="409: incompatible"):
            rig.store.enriched_frame(7, "in")
    finally:
        rig.store.close()


def test_a_thousand_schemas_in_a_minute_are_bounded() -> None:
    rig = Rig(size=100)
    for key in range(1000):
        rig.client.schemas[key] = schema(f"s{key}")
        rig.pending(key)
        rig.step(0.06)
        assert rig.store.lookup(key) == f"S{key}"
    assert rig.gauge("schemas") == 100
    assert len(rig.client.asked) == 1000


def test_schemas_are_bounded_by_their_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by those that they refer to."""
    monkeypatch.setattr("worker.registry.cache._CHARACTERS", 10)
    rig = Rig(size=100, enrich=lambda *_: b"frame")
    rig.client.versions["b"] = schema("12345678")
    rig.client.schemas[1] = RegisteredSchema("AVRO", "a", (SchemaReference("b", "b", 1),))
    rig.client.schemas[2] = schema("c")
    for key in (1, 2):
        rig.pending(key)
        rig.step()
        assert rig.store.lookup(key)
    with pytest.raises(SchemaPending):
        rig.store.enriched_frame(2, "in")
    rig.step()
    assert rig.gauge("schemas") == 3, "an enriched schema has no text here"
    rig.client.schemas[3] = schema("d")
    rig.pending(3)
    rig.step()
    rig.pending(1)


def test_waiting_records_do_not_evict_each_others_schemas_for_ever() -> None:
    """Three partitions, and room for one schema: each record sees its own in one round."""
    rig = Rig(size=1)
    rig.client.schemas = {key: schema(f"s{key}") for key in (1, 2, 3)}
    rig.pending(1, 2, 3)
    for _ in range(3):
        rig.step()
    assert [rig.store.lookup(key) for key in (1, 2, 3)] == ["S1", "S2", "S3"]
    assert rig.client.asked == [1, 2, 3]


def test_a_schema_whose_partition_went_elsewhere_is_no_longer_asked_for() -> None:
    rig = Rig()
    rig.client.away = AWAY
    rig.pending(7)
    rig.step()
    assert rig.store.away()
    asked = len(rig.client.asked)
    rig.step(61)
    assert len(rig.client.asked) == asked
    assert rig.store.away() is None
    assert rig.gauge("away") == 0
    assert rig.store.settled(7), "a record that comes back asks again"
    rig.pending(7)


def lines(rig: Rig, seconds: int) -> list[dict[str, Any]]:
    """Return what is logged in a time with a try each second."""
    with structlog.testing.capture_logs() as logged:
        for _ in range(seconds):
            rig.store.settled(7)
            rig.step(1)
    return [{name: line[name] for name in ("log_level", "event")} | line for line in logged]


def test_an_outage_is_logged_at_once_then_each_half_minute_and_its_end() -> None:
    rig = Rig()
    rig.client.schemas[7], rig.client.away = schema("a"), AWAY
    rig.pending(7)
    said = lines(rig, 100)
    assert 3 <= len(said) <= 4
    assert said[0] == {
        "log_level": "warning",
        "event": "the schema registry is away; records whose schema is not known yet wait",
        "reason": str(AWAY),
        "schemas": 1,
        "seconds": 0.0,
    }
    rig.client.away = None
    (back,) = lines(rig, 20)
    assert (back["log_level"], back["event"]) == ("info", "the schema registry is back")
    assert back["seconds"] >= 100


def test_a_flapping_registry_does_not_flood_the_log() -> None:
    rig = Rig()
    rig.client.schemas = {7: AWAY} | {key: schema("a") for key in range(100, 200)}
    rig.pending(7)
    with structlog.testing.capture_logs() as logged:
        for key in range(100, 160):
            rig.pending(key)
            rig.store.settled(7)
            for _ in range(3):
                rig.step(1 / 3)
    assert 2 <= len(logged) <= 6, logged


def test_the_thread_asks_and_ends() -> None:
    rig = Rig()
    rig.client.schemas = {key: schema(f"s{key}") for key in range(20)}
    rig.store.start()
    for key in range(20):
        with contextlib.suppress(SchemaPending):
            rig.store.lookup(key)
        wait_until(lambda key=key: rig.store.settled(key), what=f"schema {key} is settled")
        assert rig.store.lookup(key) == f"S{key}"
    rig.store.close()


def test_a_store_that_was_not_started_can_be_closed() -> None:
    Rig().store.close()


def test_a_crash_of_the_thread_reaches_the_poll_thread() -> None:
    rig = Rig()
    rig.client.away = ZeroDivisionError("a bug")
    rig.store.start()
    with pytest.raises(SchemaPending):
        rig.store.lookup(7)
    wait_until(lambda: rig.store.settled(7), what="the thread has crashed")
    with pytest.raises(StageCrashed, match="the registry thread crashed: ZeroDivisionError: a bug"):
        rig.store.lookup(7)
    rig.store.close()
