"""The brokers of a run, and its schema registry; several runs share them.

Workers reach both through proxies, so that their connections can be cut and delayed. Producer,
observer and audit do not.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.chaos.administrator import Administrator
from tests.chaos.plan import SLOTS, BrokerKind, SignIn
from tests.chaos.proxy import Wires
from tests.chaos.security import USER, Security
from tests.support.apache import ApacheKafka
from tests.support.registry import ApicurioRegistry
from worker.demo.broker import EmbeddedBroker
from worker.errors import Fatal

BROKERS = 3


@dataclass
class RegistryAccess:
    """A registry, and the address that workers connect to.

    Attributes:
        wires: one wire, of all workers.
    """

    server: ApicurioRegistry
    wires: Wires
    url: str


@dataclass
class Cluster:
    """Running brokers, and the address that the worker of each slot connects to."""

    kind: BrokerKind
    bootstrap_servers: str
    by_slot: list[str]
    kafka: ApacheKafka | None = None
    wires: Wires | None = None
    registry: RegistryAccess | None = None
    security: Security | None = None


@contextlib.contextmanager
def cluster(
    kind: BrokerKind,
    home: Path | None,
    brokers: int = BROKERS,
    registry_home: Path | None = None,
    *,
    sign_in: SignIn = "none",
) -> Iterator[Cluster]:
    """Run brokers, and a registry if there is a `registry_home`.

    Args:
        kind: Apache Kafka with a proxy for each slot, or the embedded broker.
        home: an unpacked distribution of Apache Kafka.
        brokers: number of Apache Kafka's brokers.
        registry_home: a folder whose program `start` runs a registry.
        sign_in: how workers sign in to Apache Kafka. TLS hides the protocol from the proxies.
    """
    with _brokers(kind, home, brokers, sign_in) as running:
        if registry_home is None:
            yield running
            return
        with _registry(registry_home) as running.registry:
            yield running


@contextlib.contextmanager
def _brokers(
    kind: BrokerKind, home: Path | None, brokers: int, sign_in: SignIn
) -> Iterator[Cluster]:
    if kind == "embedded":
        with EmbeddedBroker() as broker:
            yield Cluster(kind, broker.bootstrap_servers, [broker.bootstrap_servers])
        return
    if home is None or not (home / "bin" / "kafka-server-start.sh").is_file():
        raise Fatal(
            "BROKER=apache needs an unpacked distribution of Apache Kafka: set KAFKA_HOME to its "
            "folder, or use BROKER=embedded"
        )
    with Wires(SLOTS[kind], brokers, kafka=sign_in == "none") as wires, _folder() as folder:
        doors = {f"SLOT{n}": wire.ports for n, wire in enumerate(wires.slots)}
        security = Security(folder, doors) if sign_in == "sasl_ssl" else None
        properties = security.properties if security else None
        with ApacheKafka(home, properties, brokers=brokers, doors=doors) as kafka:
            wires.connect([[node.listeners[door] for node in kafka.nodes] for door in doors])
            by_slot = [",".join(f"127.0.0.1:{port}" for port in wire.ports) for wire in wires.slots]
            if security:
                Administrator(kafka.bootstrap_servers).set_password(USER, security.password)
            yield Cluster(kind, kafka.bootstrap_servers, by_slot, kafka, wires, security=security)


@contextlib.contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="streamlabel-secrets-") as folder:
        yield Path(folder)


@contextlib.contextmanager
def behind_proxy(server: ApicurioRegistry) -> Iterator[RegistryAccess]:
    """Give workers access to a running registry."""
    address = urlsplit(server.url)
    with Wires(1, 1) as wires:
        wires.connect([[address.port or 0]])
        netloc = f"127.0.0.1:{wires.slots[0].ports[0]}"
        yield RegistryAccess(server, wires, address._replace(netloc=netloc).geturl())


@contextlib.contextmanager
def _registry(home: Path) -> Iterator[RegistryAccess]:
    if not (home / "start").is_file():
        raise Fatal(
            "FORMAT=avro needs a schema registry: set REGISTRY_HOME to a folder whose program "
            "`start` runs one, or use FORMAT=json"
        )
    with ApicurioRegistry(home) as server, behind_proxy(server) as access:
        yield access
