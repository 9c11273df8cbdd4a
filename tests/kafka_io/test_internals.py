"""The contract with kafka-python: a release that lacks a private name fails here, by that name.

The list in `internals.NAMES` is compared with the library's classes and, for attributes that
a constructor sets, with their source. The code of this package is compared with the list: its
imports, its private attributes (by the linter), and the classes that derive from the library's.
Undocumented attributes without an underscore of objects that the library passes to us, such as
a connection's `in_flight_requests`, can't be found this way; they are listed by hand.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import kafka
import pytest
from kafka.coordinator.consumer import ConsumerCoordinator
from kafka.net.connection import KafkaConnection, SaslReauthenticator
from kafka.net.manager import KafkaConnectionManager
from kafka.net.sasl.oauth import SaslMechanismOAuth
from kafka.net.transport import KafkaTCPTransport
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

import worker.kafka_io
from worker.kafka_io import internals

FOLDER = Path(worker.kafka_io.__file__).parent
MODULES = sorted(path for path in FOLDER.glob("*.py") if path.stem != "__init__")
PUBLIC_MODULES = {
    "kafka",
    "kafka.admin",
    "kafka.coordinator.assignors.cooperative_sticky",
    "kafka.errors",
    "kafka.structs",
}
LISTED = [
    (owner, name, reason)
    for owner, names in internals.NAMES.items()
    for group, reason in names.items()
    for name in group.split()
]
# The leading parameters of methods that are overridden, replaced or called by position.
SIGNATURES = {
    internals.ConsumerCoordinator: {
        "_handle_heartbeat_response": "self response send_time",
        "_process_sync_group_response": "self response send_time",
        "need_rejoin": "self",
        "refresh_committed_offsets_if_needed_async": "self timeout_ms",
        "reset_generation": "self member_id",
    },
    internals.DefaultRecordBatch: {"_maybe_uncompress": "self", "_read_msg": "self decode_varint"},
    internals.DefaultRecordBatchBuilder: {"append": "self offset timestamp key value headers"},
    internals.Fetcher: {"_parse_fetched_data": "self completed_fetch"},
    internals.Fetcher.PartitionRecords: {
        "__init__": "self fetch_offset tp records",
        "take": "self n",
    },
    internals.KafkaAdminClient: {"_find_coordinator_ids": "self keys"},
    internals.KafkaConnectionManager: {
        "__init__": "self net",
        "_build_transport": "self node timeout_at",
        "_connect": "self node conn",
        "close": "self node_id timeout_ms",
        "get_connection": "self node_id",
        "send": "self request node_id",
    },
    internals.KafkaNetClient: {"__init__": "self net manager"},
    internals.KafkaTCPTransport: {"__init__": "self net sock host", "_sock_recv": "self"},
    internals.KafkaSSLTransport: {"__init__": "self net sock host", "handshake": "self"},
    internals.RecordAccumulator: {
        "abort_batches": "self error",
        "abort_undrained_batches": "self error",
    },
    KafkaConnection: {"_sasl_authenticate": "self timeout_at"},
    internals.TransactionManager: {"send_offsets_to_transaction": "self offsets group_metadata"},
}
# Places in the library where an override or a replacement takes effect.
CALLS: list[tuple[Any, str]] = [
    (ConsumerCoordinator, "need_rejoin()"),
    (ConsumerCoordinator, "_handle_heartbeat_response("),
    (ConsumerCoordinator, "_process_sync_group_response("),
    (ConsumerCoordinator, "_on_join_complete_async("),
    (ConsumerCoordinator, "self.refresh_committed_offsets_if_needed_async,"),
    (kafka.KafkaConsumer, "_coordinator.refresh_committed_offsets_if_needed("),
    (internals.Fetcher, "self._parse_fetched_data("),
    (internals.Fetcher, "self.PartitionRecords("),
    (internals.DefaultRecordBatch, "self._maybe_uncompress("),
    (internals.DefaultRecordBatch, "self._read_msg("),
    (internals.KafkaConnectionManager, "self._connect"),
    (internals.KafkaConnectionManager, "self._build_transport("),
    (internals.Sender, ".abort_batches("),
    (internals.Sender, ".abort_undrained_batches("),
    (KafkaConnection, "self._sasl_authenticate(timeout_at)"),
    (KafkaConnection, "raise Errors.SaslAuthenticationFailedError("),
    (SaslReauthenticator, "self._conn._sasl_authenticate()"),
    (SaslMechanismOAuth, "self.token_provider.token()"),
    (internals.KafkaNetClient.close, "self._manager.close("),
    (KafkaConnectionManager.close_idle_connections, "least_used_connections"),
    (KafkaConnectionManager.send, "least_loaded_node"),
    (KafkaTCPTransport._read_from_sock, "_sock_recv"),
    (
        KafkaConnection._send_request,
        "(correlation_id, future, sent_time, timeout_at, timeout_task)",
    ),
    (MemoryRecords, "DefaultRecordBatch("),
    (MemoryRecordsBuilder, "DefaultRecordBatchBuilder("),
]


def declares(owner: Any, name: str) -> bool:
    """Return whether a class or module has the name, or a constructor sets it."""
    if hasattr(owner, name):
        return True
    assignment = re.compile(rf"\bself\.{re.escape(name)}\b[^=\n]*=[^=]")
    return not isinstance(owner, ModuleType) and bool(assignment.search(source_of(owner)))


def source_of(owner: Any) -> str:
    """Return the source of a function, or of a class and its bases."""
    bases = inspect.getmro(owner) if inspect.isclass(owner) else [owner]
    return "".join(inspect.getsource(base) for base in bases if base.__module__ != "builtins")


def missing_names() -> list[str]:
    """Return a line for each listed name that the installed release lacks."""
    return [
        f"kafka-python {kafka.__version__} has no {owner.__name__}.{name} ({reason})"
        for owner, name, reason in LISTED
        if not declares(owner, name)
    ]


def parameters(method: Any) -> list[str]:
    return list(inspect.signature(method).parameters)


def changed_signatures() -> list[str]:
    """Return a line for each method whose leading parameters have changed."""
    return [
        f"{owner.__name__}.{name} takes {parameters(getattr(owner, name))}, expected {expected!r}"
        for owner, methods in SIGNATURES.items()
        for name, expected in methods.items()
        if parameters(getattr(owner, name))[: len(expected.split())] != expected.split()
    ]


# -- the library -------------------------------------------------------------------------------


def test_the_installed_release_has_every_name() -> None:
    assert not missing_names()


def test_a_release_without_a_method_fails_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(internals.Fetcher, "_parse_fetched_data")
    (line,) = missing_names()
    assert "has no Fetcher._parse_fetched_data (overridden: a fetch response" in line


def test_a_release_without_an_attribute_fails_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the constructor's source shows an instance attribute."""
    real = inspect.getsource

    def renamed(owner: Any) -> str:
        return real(owner).replace("self._accumulator", "self._queue")

    monkeypatch.setattr(inspect, "getsource", renamed)
    (line,) = missing_names()
    assert "has no KafkaProducer._accumulator (" in line


def test_the_installed_release_has_every_signature() -> None:
    assert not changed_signatures()


def test_another_signature_fails_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internals.Fetcher.PartitionRecords, "take", lambda self, limit: [])
    (line,) = changed_signatures()
    assert line == "PartitionRecords.take takes ['self', 'limit'], expected 'self n'"


@pytest.mark.parametrize(
    ("caller", "call"), CALLS, ids=[f"{caller.__qualname__}: {call}" for caller, call in CALLS]
)
def test_the_library_calls_what_is_overridden(caller: Any, call: str) -> None:
    """Otherwise a release would drop a fix without an error."""
    assert call in source_of(caller)


# -- this package ------------------------------------------------------------------------------


def private_imports(source: str) -> list[str]:
    """Return the private modules of the library that a source imports."""
    imported = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            imported += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            imported.append(node.module)
    of_library = (name for name in imported if name.split(".")[0] == "kafka")
    return [name for name in of_library if name not in PUBLIC_MODULES]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_only_internals_imports_private_modules(path: Path) -> None:
    assert bool(private_imports(path.read_text(encoding="utf-8"))) is (path.stem == "internals")


def test_a_private_import_is_found() -> None:
    source = "import kafka.net.inet\nfrom kafka.future import Future\nfrom kafka import errors\n"
    assert private_imports(source) == ["kafka.net.inet", "kafka.future"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_only_internals_may_use_private_attributes(path: Path) -> None:
    """The linter finds them (SLF001) unless a comment permits it."""
    permitted = "SLF001" in path.read_text(encoding="utf-8")
    assert permitted is (path.stem == "internals")


def derived_classes() -> list[type]:
    """Return the classes of this package that derive from the library's private classes."""
    modules = [importlib.import_module(f"worker.kafka_io.{path.stem}") for path in MODULES]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if inspect.isclass(value) and value.__module__ == module.__name__
        if any(map(is_private, inspect.getmro(value)))
    ]


def is_private(base: type) -> bool:
    """Return whether a class is the library's, and neither exported nor an exception."""
    of_library = base.__module__.split(".")[0] == "kafka"
    return of_library and base.__name__ not in kafka.__all__ and not issubclass(base, Exception)


def inherited_names(derived: type) -> set[str]:
    """Return the names that a class overrides or reads from `self` and `super()`."""
    names = set()
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(derived)))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) in {"self", "super()"}:
            names.add(node.attr)
    return names - {"__init__", "__class__"}


@pytest.mark.parametrize("derived", derived_classes(), ids=lambda derived: derived.__name__)
def test_a_derived_class_uses_only_listed_names(derived: type) -> None:
    bases = [base for base in inspect.getmro(derived) if is_private(base)]
    listed = {name for owner, name, _ in LISTED if owner in bases}
    used = {name for name in inherited_names(derived) if any(declares(b, name) for b in bases)}
    assert not used - listed


def test_every_derived_class_is_checked() -> None:
    assert len(derived_classes()) == 11


@pytest.mark.parametrize("name", sorted({name for _, name, _ in LISTED}))
def test_every_listed_name_is_used(name: str) -> None:
    """The list must not outlive the code."""
    sources = [path.read_text(encoding="utf-8") for path in MODULES]
    uses = sum(len(re.findall(rf"\b{name}\b", source)) for source in sources)
    listed = sum(name == other for _, other, _ in LISTED)
    assert uses > listed
