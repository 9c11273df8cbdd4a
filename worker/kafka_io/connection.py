"""How every client reaches the cluster.

Owns the clients' common options. Any thread may call it. Imports no inference and no runtime.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Any, TypeVar

from kafka.errors import KafkaTimeoutError
from kafka.net.compat import KafkaNetClient

from worker.clock import SystemClock
from worker.errors import AccessDenied, BrokerAway, StreamlabelError
from worker.kafka_io.causes import Verdict, refusal, witness
from worker.kafka_io.network import Manager, client_factory
from worker.kafka_io.nulls import write_nulls
from worker.kafka_io.probe import diagnose, unreachable
from worker.kafka_io.record_batch import patch_record_batches
from worker.kafka_io.tls import check_files
from worker.kafka_io.translation import translate
from worker.settings import KafkaSettings

Client = TypeVar("Client")

_FIRST_CONNECTION = 10.0  # seconds; what is up answers in one, what is not is tried again by us
_FIRST_LOOK = 1.0  # seconds, until what keeps it from answering is looked into
_RECONNECT_BACKOFF_MAX_MS = 5_000  # the library's 30 s would outlast most outages
_LONGER_MS = 1000
_QUESTIONS = 3  # of TCP's keepalive, until the connection is given up

_let_in: set[KafkaSettings] = set()  # with these, a broker has spoken to this process
# Each try with a wrong password is one step on to an account that is locked.
_refused: dict[KafkaSettings, Verdict] = {}


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """What consumer, producer and admin client have in common, as the library's keywords.

    Also starts to listen for the reason should the connection fail: call it anew per client.
    """
    logging.getLogger("kafka").addHandler(witness)  # a handler is added once at most
    witness.begin(let_in=kafka in _let_in)
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap_servers.split(",")],
        "client_id": kafka.client_id,
        "security_protocol": kafka.security_protocol,
        "request_timeout_ms": int(kafka.request_timeout * 1000),
        "bootstrap_timeout_ms": int(min(kafka.request_timeout, _FIRST_CONNECTION) * 1000),
        "reconnect_backoff_max_ms": _RECONNECT_BACKOFF_MAX_MS,
        "metadata_max_age_ms": int(kafka.metadata_max_age * 1000),
        "socket_options": _socket_options(kafka),
        # The consumer wants more than its request timeout; `network` closes idle connections, and
        # never one on which it waits for an answer.
        "connections_max_idle_ms": int(kafka.request_timeout * 1000) + _LONGER_MS,
    }
    return options | _sasl(kafka) | _tls(kafka)


def _socket_options(kafka: KafkaSettings) -> list[tuple[int, int, int]]:
    options = [
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    ]
    pause = max(1, kafka.tcp_keepalive // 4)
    for name, value in (
        ("TCP_KEEPIDLE", kafka.tcp_keepalive),
        ("TCP_KEEPINTVL", pause),
        ("TCP_KEEPCNT", _QUESTIONS),
    ):
        if hasattr(socket, name):  # not on every system
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return options


def _sasl(kafka: KafkaSettings) -> dict[str, Any]:
    if kafka.sasl_mechanism is None or kafka.sasl_password is None:
        return {}
    return {
        "sasl_mechanism": kafka.sasl_mechanism,
        "sasl_plain_username": kafka.sasl_username,
        "sasl_plain_password": kafka.sasl_password.get_secret_value(),
    }


def _tls(kafka: KafkaSettings) -> dict[str, Any]:
    names = ("ssl_cafile", "ssl_certfile", "ssl_keyfile")
    files = {name: str(path) for name in names if (path := getattr(kafka, name)) is not None}
    secret = kafka.ssl_key_password
    # Given none, OpenSSL would ask for one on the terminal, on a thread of the library.
    password = {"ssl_password": secret.get_secret_value() if secret else ""}
    return files | password if kafka.ssl_certfile else files


def connect(make: Callable[..., Client], kafka: KafkaSettings, **options: Any) -> Client:
    """Make a client and wait until it has spoken to a broker.

    Settings that no broker has let in yet get a first try that is short: where it fails, the server
    is asked plainly what is wrong, and what another try can't mend is said at once.

    Args:
        make: `KafkaConsumer`, `KafkaProducer` or `KafkaAdminClient`.
        kafka: the cluster.
        options: what this client needs beyond `client_options`.

    Raises:
        BrokerAway: no broker answered within 10 s, or the address that the brokers send clients to
            can't be reached; the message names the likely cause.
        AccessDenied: the credentials are refused.
        Fatal: the broker's certificate is not trusted, or no broker is there but something else.
        SettingsError: a file of TLS can't be used.
    """
    patch_record_batches()
    write_nulls()
    check_files(kafka)
    if known := _refused.get(kafka):
        raise known.error(kafka.bootstrap_servers)
    patience = min(kafka.request_timeout, _FIRST_CONNECTION)
    if kafka in _let_in:
        return _made(make, kafka, patience, options)[0]
    client, manager = _introduced(make, kafka, patience, options)
    if not manager.reached(_FIRST_LOOK):
        _stop_if_cut_off(client, manager, kafka)
    _let_in.add(kafka)
    return client


def _introduced(
    make: Callable[..., Client], kafka: KafkaSettings, patience: float, options: dict[str, Any]
) -> tuple[Client, Manager]:
    """A short try, a look at the server, a long try."""
    first_look = min(_FIRST_LOOK, patience)
    try:
        return _made(make, kafka, first_look, options)
    except StreamlabelError as error:
        if not isinstance(error.__cause__, KafkaTimeoutError):  # it was told why
            raise
        if verdict := diagnose(kafka):
            raise verdict.error(kafka.bootstrap_servers) from None
        if patience <= first_look:
            raise
    return _made(make, kafka, patience - first_look, options)


def _made(
    make: Callable[..., Client], kafka: KafkaSettings, patience: float, options: dict[str, Any]
) -> tuple[Client, Manager]:
    nets: list[KafkaNetClient] = []
    factory = client_factory(kafka.connections_max_idle, SystemClock(), nets)
    chosen = client_options(kafka) | {"bootstrap_timeout_ms": int(patience * 1000)}
    try:
        client = make(**chosen, **options, kafka_client=factory)
    except Exception as error:
        # The constructor leaves its IO thread behind, connecting for ever.
        for half_open in nets:
            half_open.close()
            half_open._net.stop(timeout_ms=1000)  # noqa: SLF001 - as the library's own close does
        raise _explained(error, kafka) from error
    return client, nets[0]._manager  # noqa: SLF001 - there is no public way


def _explained(error: Exception, kafka: KafkaSettings) -> StreamlabelError:
    verdict = refusal(str(error))
    if verdict and verdict.meaning is AccessDenied:
        _refused[kafka] = verdict
    return verdict.error(kafka.bootstrap_servers) if verdict else translate(error)


def _stop_if_cut_off(client: Any, manager: Manager, kafka: KafkaSettings) -> None:
    """Raises BrokerAway where no broker can be reached at the address that it sends clients to."""
    brokers = [(one.node_id, one.host, one.port) for one in manager.cluster.brokers()]
    faults = unreachable(brokers)
    if brokers and len(faults) == len(brokers):
        client.close()
        raise BrokerAway(f"{kafka.bootstrap_servers} answers, but {'; '.join(faults)}")
