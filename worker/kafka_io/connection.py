"""How every client reaches the cluster.

Owns the clients' common options. Any thread may call it. Imports no inference and no runtime.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from kafka.net.compat import KafkaNetClient

from worker.kafka_io.batches import tolerate
from worker.kafka_io.nulls import write_nulls
from worker.kafka_io.translation import translate, witness
from worker.settings import KafkaSettings

Client = TypeVar("Client")

_FIRST_CONNECTION = 10.0  # seconds; what is up answers in one, what is not is tried again by us
_RECONNECT_BACKOFF_MAX_MS = 5_000  # the library's 30 s would outlast most outages

_let_in: set[KafkaSettings] = set()  # with these, a broker has spoken to this process


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
    }
    return options | _sasl(kafka) | _tls(kafka)


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

    Args:
        make: `KafkaConsumer`, `KafkaProducer` or `KafkaAdminClient`.
        kafka: the cluster.
        options: what this client needs beyond `client_options`.

    Raises:
        BrokerAway: no broker answered within 10 s; the message names the likely cause.
        AccessDenied: the credentials are refused.
        Fatal: the broker's certificate is not trusted.
    """
    tolerate()
    write_nulls()
    inner: list[Any] = []

    def remembered(**configs: Any) -> Any:
        inner.append(KafkaNetClient(**configs))
        return inner[-1]

    try:
        client = make(**client_options(kafka), **options, kafka_client=remembered)
    except Exception as error:
        # The constructor leaves its IO thread behind, connecting for ever.
        for half_open in inner:
            half_open.close()
            half_open._net.stop(timeout_ms=1000)  # noqa: SLF001 - as the library's own close does
        raise translate(error) from error
    _let_in.add(kafka)
    return client
