"""Connects clients to the cluster.

Owns: the options that all clients share; which settings have connected or been refused.
Thread: any.
Must not import: inference, runtime.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self, TypeVar

from kafka import KafkaConsumer
from kafka.errors import KafkaTimeoutError, SaslAuthenticationFailedError

from worker.clock import SystemClock
from worker.errors import AccessDenied, BrokerAway, Fatal, SettingsError, StreamlabelError
from worker.kafka_io.causes import Diagnosis, client_log, permanent_failure
from worker.kafka_io.internals import KafkaNetClient, manager_of, stop_network
from worker.kafka_io.network import Manager, client_factory
from worker.kafka_io.null_headers import patch_batch_builder
from worker.kafka_io.probe import diagnose, unreachable
from worker.kafka_io.record_batch import patch_record_batches
from worker.kafka_io.sign_in import prepare_sign_in, refused_sign_in, sasl_options
from worker.kafka_io.tls import tls_context
from worker.kafka_io.translation import translate
from worker.settings import KafkaSettings, client_extra

Client = TypeVar("Client")

# A running broker answers within 1 s. The worker itself retries one that does not.
_CONNECT_TIMEOUT = 10.0  # seconds
_FIRST_TRY = 1.0  # seconds, until the server is probed
_IDLE_MARGIN_MS = 1000
_KEEPALIVE_PROBES = 3  # without an answer, until TCP gives the connection up

# Every consumer reads committed records only, commits offsets itself and creates no topic.
CONSUMER_OPTIONS: dict[str, Any] = {
    "enable_auto_commit": False,
    "isolation_level": "read_committed",
    "allow_auto_create_topics": False,
}
_READER_OPTIONS = CONSUMER_OPTIONS | {"group_id": None, "auto_offset_reset": "earliest"}

_connected: set[KafkaSettings] = set()  # a broker has accepted these in this process
# Each further try with a wrong password is one step closer to a locked account.
_refused: dict[KafkaSettings, Diagnosis] = {}


class Closeable:
    """Closes itself at the end of a `with` block."""

    def close(self) -> None:
        """Release the connections."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the options that consumer, producer and admin client share.

    Also starts to collect the reasons of a failed connection: call it once for each client.
    """
    logging.getLogger("kafka").addHandler(client_log)  # adds it once only
    client_log.reset(connected_before=kafka in _connected)
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap_servers.split(",")],
        "client_id": kafka.client_id,
        "security_protocol": kafka.security_protocol,
        "request_timeout_ms": int(kafka.request_timeout * 1000),
        "bootstrap_timeout_ms": int(min(kafka.request_timeout, _CONNECT_TIMEOUT) * 1000),
        "reconnect_backoff_ms": int(kafka.reconnect_backoff * 1000),
        "reconnect_backoff_max_ms": int(kafka.reconnect_backoff_max * 1000),
        "metadata_max_age_ms": int(kafka.metadata_max_age * 1000),
        "socket_options": _socket_options(kafka),
        # The consumer requires more than its request timeout. `network` closes idle connections
        # sooner, but none on which it awaits a response.
        "connections_max_idle_ms": int(kafka.request_timeout * 1000) + _IDLE_MARGIN_MS,
    }
    if kafka.proxy_url:
        options["proxy_url"] = kafka.proxy_url.get_secret_value()
    return options | sasl_options(kafka)


def _some_have(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the options that not every client has."""
    rack = {"client_rack": kafka.client_rack} if kafka.client_rack else {}
    return rack | client_extra.values(kafka.extra)


def _socket_options(kafka: KafkaSettings) -> list[tuple[int, int, int]]:
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    interval = max(1, kafka.tcp_keepalive // 4)
    for name, value in (
        ("TCP_KEEPIDLE", kafka.tcp_keepalive),
        ("TCP_KEEPINTVL", interval),
        ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
    ):
        if hasattr(socket, name):  # some systems lack it
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    buffers = (
        (socket.SO_SNDBUF, kafka.send_buffer_bytes),
        (socket.SO_RCVBUF, kafka.receive_buffer_bytes),
    )
    return options + [(socket.SOL_SOCKET, name, size) for name, size in buffers if size is not None]


def connect(make: Callable[..., Client], kafka: KafkaSettings, **options: Any) -> Client:
    """Make a client and wait until a broker has answered it.

    Settings that no broker has accepted yet get a short first try. If it fails, the server is
    probed, and a cause that another try can't change is raised at once. Once a broker has accepted
    them, a fault of a certificate or a file means that it is being replaced.

    Args:
        make: `KafkaConsumer`, `KafkaProducer` or `KafkaAdminClient`.
        kafka: the cluster.
        options: this client's own options, beyond `client_options`.

    Raises:
        BrokerAway: no broker answered within 10 s, no advertised address can be reached, there is
            no token or ticket to sign in with now, or a certificate or a file that was accepted
            before is not now; the message names the likely cause.
        AccessDenied: the credentials are refused.
        Fatal: the broker's certificate is not trusted, or the server is not a broker.
        SettingsError: a TLS file can't be used; an extra or a region is missing.
    """
    patch_record_batches()
    patch_batch_builder()
    if kafka.security_protocol.endswith("SSL"):
        _check_files(kafka)
    if diagnosis := _refused.get(kafka):
        raise diagnosis.error(kafka.route)
    _prepare_sign_in(kafka)
    timeout = min(kafka.request_timeout, _CONNECT_TIMEOUT)
    if kafka in _connected:
        return _make(make, kafka, timeout, options)[0]
    client, manager = _make_and_diagnose(make, kafka, timeout, options)
    if not manager.can_reach_a_broker(_FIRST_TRY):
        _require_a_reachable_broker(client, manager, kafka)
    _connected.add(kafka)
    return client


def _check_files(kafka: KafkaSettings) -> None:
    try:
        tls_context(kafka)
    except SettingsError as error:
        if kafka in _connected:
            raise BrokerAway(str(error)) from error
        raise


def _prepare_sign_in(kafka: KafkaSettings) -> None:
    try:
        prepare_sign_in(kafka)
    except StreamlabelError as error:
        diagnosis = Diagnosis(type(error), str(error))
        if diagnosis.error_type is AccessDenied:
            _refused[kafka] = diagnosis
        raise diagnosis.error(kafka.route) from error


def connect_reader(kafka: KafkaSettings, **options: Any) -> Any:
    """Make a consumer that joins no group and reads committed records from the start of a topic.

    Raises:
        BrokerAway, AccessDenied, Fatal, SettingsError: as `connect`.
    """
    return connect(KafkaConsumer, kafka, **(_READER_OPTIONS | options))


def _make_and_diagnose(
    make: Callable[..., Client], kafka: KafkaSettings, timeout: float, options: dict[str, Any]
) -> tuple[Client, Manager]:
    """Try for a short time, probe the server, try for the rest of `timeout`."""
    first_try = min(_FIRST_TRY, timeout)
    try:
        return _make(make, kafka, first_try, options)
    except StreamlabelError as error:
        if not isinstance(error.__cause__, KafkaTimeoutError):  # the cause is known
            raise
        # A probe does not know the way through a proxy.
        if not kafka.proxy_url and (diagnosis := diagnose(kafka)):
            raise diagnosis.error(kafka.route) from None
        if timeout <= first_try:
            raise
    return _make(make, kafka, timeout - first_try, options)


def _make(
    make: Callable[..., Client], kafka: KafkaSettings, timeout: float, options: dict[str, Any]
) -> tuple[Client, Manager]:
    networks: list[KafkaNetClient] = []
    factory = client_factory(kafka, SystemClock(), networks)
    shared = client_options(kafka) | {"bootstrap_timeout_ms": int(timeout * 1000)}
    # The class of a client lists the options that it takes.
    known: Mapping[str, Any] = getattr(make, "DEFAULT_CONFIG", {})
    shared |= {name: value for name, value in _some_have(kafka).items() if name in known}
    try:
        client = make(**(shared | options), kafka_client=factory)
    except Exception as error:
        # A failed constructor leaves its IO thread running, which connects without end.
        for network in networks:
            stop_network(network)
        raise _explain(error, kafka) from error
    return client, manager_of(networks[0])


def _explain(error: Exception, kafka: KafkaSettings) -> StreamlabelError:
    diagnosis = permanent_failure(str(error))
    if isinstance(error, SaslAuthenticationFailedError):
        diagnosis = refused_sign_in(kafka, error) or diagnosis
    if diagnosis and diagnosis.error_type is AccessDenied:
        _refused[kafka] = diagnosis
    if diagnosis is None and isinstance(error, KafkaTimeoutError):  # it never says why
        diagnosis = client_log.diagnosis()
    if diagnosis and diagnosis.error_type is Fatal and kafka in _connected:
        diagnosis = diagnosis._replace(error_type=BrokerAway)
    return diagnosis.error(kafka.route) if diagnosis else translate(error)


def _require_a_reachable_broker(client: Any, manager: Manager, kafka: KafkaSettings) -> None:
    """Raise BrokerAway if no broker can be reached at its advertised address."""
    if kafka.proxy_url:  # the addresses need not be reachable from here
        return
    brokers = [(broker.node_id, broker.host, broker.port) for broker in manager.cluster.brokers()]
    faults = unreachable(brokers)
    if brokers and len(faults) == len(brokers):
        client.close()
        raise BrokerAway(f"{kafka.bootstrap_servers} answers, but {'; '.join(faults)}")
