"""How every client reaches the cluster, and what its failures mean.

Owns the clients' common options, the translation of the client library's exceptions into
`worker.errors`, and the search for the reason why a first connection failed. Any thread may call
it. Imports no inference and no runtime.

The library retries a first connection without end and then says only "Unable to bootstrap": a
wrong password, an unknown authority and a switched-off broker look the same. What went wrong each
time it tells its log alone, so a handler on its logger remembers the last lines.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any, TypeVar

from kafka import errors
from kafka.net.compat import KafkaNetClient

from worker.errors import (
    AccessDenied,
    BrokerAway,
    Fatal,
    Fenced,
    PublishRefused,
    StreamlabelError,
    TopicMissing,
)
from worker.settings import KafkaSettings

Client = TypeVar("Client")

_FIRST_CONNECTION = 10.0  # seconds; what is up answers in one, what is not is tried again by us
_RECONNECT_BACKOFF_MAX_MS = 5_000  # the library's 30 s would outlast most outages

# By meaning, first match wins. What is in none of them is judged by the library's own `retriable`.
_MEANINGS: tuple[tuple[type[StreamlabelError], tuple[type[Exception], ...]], ...] = (
    (AccessDenied, (errors.AuthorizationError, errors.SaslAuthenticationFailedError)),
    (
        TopicMissing,
        (
            errors.UnknownTopicOrPartitionError,
            errors.UnknownTopicIdError,
            errors.InvalidTopicError,
        ),
    ),
    (
        Fenced,
        (
            errors.ProducerFencedError,
            errors.InvalidProducerEpochError,
            errors.TransactionCoordinatorFencedError,
            errors.FencedInstanceIdError,
            errors.FencedMemberEpochError,
        ),
    ),
    (
        PublishRefused,
        (
            errors.MessageSizeTooLargeError,
            errors.RecordListTooLargeError,
            errors.InvalidRecordError,
        ),
    ),
    (
        BrokerAway,
        (
            errors.RetriableError,
            errors.BrokerNotAvailableError,
            # The group moved on while we spoke: the next poll joins it again.
            errors.CommitFailedError,
            errors.RebalanceInProgressError,
            errors.IllegalGenerationError,
            errors.UnknownMemberIdError,
            ConnectionError,
            TimeoutError,
        ),
    ),
)

# What the library's log says (a pattern) -> what it means, the surest sign first.
_CAUSES: tuple[tuple[str, type[StreamlabelError], str], ...] = (
    (
        "SaslAuthenticationFailed",
        AccessDenied,
        "it refuses the credentials: check kafka.sasl_username and kafka.sasl_password",
    ),
    (
        "UnsupportedSaslMechanism",
        AccessDenied,
        "it does not take this way to log in: check kafka.sasl_mechanism",
    ),
    (
        "IllegalSaslState",
        AccessDenied,
        "this port takes no SASL: check the port and kafka.security_protocol",
    ),
    (
        "certificate is not valid for",
        Fatal,
        "its certificate is for another host name: use that name in kafka.bootstrap_servers",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        Fatal,
        "its certificate is not signed by an authority that is known here: set kafka.ssl_cafile",
    ),
    # The broker told its version and then hung up. When its "no" and the end of the connection
    # arrive together, the library drops the "no" (`_sock_recv` returns both, the error wins), so
    # a wrong password looks like this about every other time.
    (
        r"broker_version=\(.*socket disconnected",
        AccessDenied,
        (
            "it hangs up instead of letting this client in: check kafka.sasl_username, "
            "kafka.sasl_password, kafka.sasl_mechanism and kafka.security_protocol"
        ),
    ),
    (
        r"\[SSL",
        BrokerAway,
        (
            "the TLS handshake failed: check the port, kafka.security_protocol and, where the broker "
            "wants a client certificate, kafka.ssl_certfile"
        ),
    ),
    ("DNS", BrokerAway, "its host name can't be resolved"),
    ("ECONNREFUSED", BrokerAway, "nothing listens there: is the broker up, is the port right?"),
    ("timed out", BrokerAway, "nothing answers there: is a firewall in the way?"),
    (
        "socket disconnected",
        BrokerAway,
        "it hangs up at once: this port may want TLS (check kafka.security_protocol)",
    ),
)


class _Witness(logging.Handler):
    """Remembers which signs the library's complaints held, and the last one; no record is in them.

    A set of signs, not the lines: a client that fails logs some of them thousands of times.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.forget()

    def forget(self) -> None:
        """Start anew."""
        self.signs: set[str] = set()
        self.last = "nothing answers"

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()
        self.signs.update(sign for sign, _, _ in _CAUSES if re.search(sign, self.last))


_witness = _Witness()


def client_options(kafka: KafkaSettings) -> dict[str, Any]:
    """What consumer, producer and admin client have in common, as the library's keywords.

    Also starts to listen for the reason should the connection fail: call it anew per client.
    """
    logging.getLogger("kafka").addHandler(_witness)  # a handler is added once at most
    _witness.forget()
    options: dict[str, Any] = {
        "bootstrap_servers": [server.strip() for server in kafka.bootstrap_servers.split(",")],
        "client_id": kafka.client_id,
        "security_protocol": kafka.security_protocol,
        "request_timeout_ms": int(kafka.request_timeout * 1000),
        "bootstrap_timeout_ms": int(min(kafka.request_timeout, _FIRST_CONNECTION) * 1000),
        "reconnect_backoff_max_ms": _RECONNECT_BACKOFF_MAX_MS,
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
    return {name: str(path) for name in names if (path := getattr(kafka, name)) is not None}


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
    inner: list[Any] = []

    def remembered(**configs: Any) -> Any:
        inner.append(KafkaNetClient(**configs))
        return inner[-1]

    try:
        return make(**client_options(kafka), **options, kafka_client=remembered)
    except Exception as error:
        # The constructor leaves its IO thread behind, connecting for ever.
        for half_open in inner:
            half_open.close()
            half_open._net.stop(timeout_ms=1000)  # noqa: SLF001 - as the library's own close does
        raise translate(error) from error


def translate(error: Exception) -> StreamlabelError:
    """What an exception of the client library means for the worker; unknown ones are `Fatal`."""
    if isinstance(error, StreamlabelError):
        return error
    if isinstance(error, errors.KafkaTimeoutError) and "Unable to bootstrap" in str(error):
        return _explained(error)
    for meaning, types in _MEANINGS:
        if isinstance(error, types):
            return meaning(_told(error, meaning))
    return Fatal(f"Kafka: {type(error).__name__}: {error}")


def _told(error: Exception, meaning: type[StreamlabelError]) -> str:
    said = f"Kafka: {_plain(error)}"
    if meaning is TopicMissing:
        return f"{said} (`streamlabel topics create` makes the topics)"
    return said


def _plain(error: Exception) -> str:
    """The library's words, without its class name a second time."""
    words = getattr(error, "message", None) or getattr(error, "description", None)
    detail = "; ".join(str(arg) for arg in error.args)
    return f"{type(error).__name__}: {detail or words or 'no details'}"


def _explained(error: Exception) -> StreamlabelError:
    servers = re.sub(r"[\[\]']", "", str(error).rpartition(" from ")[2])
    for sign, meaning, words in _CAUSES:
        if sign in _witness.signs:
            return meaning(f"can't connect to Kafka at {servers}: {words}")
    return BrokerAway(f"can't connect to Kafka at {servers}: {_witness.last}")
