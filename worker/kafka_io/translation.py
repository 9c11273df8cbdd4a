"""What the client library's exceptions mean, and from that what is done about them.

Any thread may call it. Imports no inference and no runtime. `core/faults.py` turns the meaning
(a branch of `worker.errors`) into a disposition; a test reads this table and holds it true.

| fault | as the client says it | meaning | disposition |
|---|---|---|---|
| a broker restarts or is killed | KafkaConnectionError | BrokerAway | retry |
| no answer in time | KafkaTimeoutError | BrokerAway | retry |
| a leader changes | NotLeaderForPartitionError | BrokerAway | retry |
| a leader is being elected | LeaderNotAvailableError | BrokerAway | retry |
| too few copies are in sync | NotEnoughReplicasError | BrokerAway | retry |
| too few copies, after the write | NotEnoughReplicasAfterAppendError | BrokerAway | retry |
| a broker's disk is full or gone | KafkaStorageError | BrokerAway | retry |
| a quota is exceeded | ThrottlingQuotaExceededError | BrokerAway | retry |
| the group's coordinator moves | NotCoordinatorError | BrokerAway | retry |
| the coordinator still loads | CoordinatorLoadInProgressError | BrokerAway | retry |
| a rebalance is under way | RebalanceInProgressError | BrokerAway | retry |
| the group went on without us | UnknownMemberIdError | BrokerAway | retry |
| the group is a generation ahead | IllegalGenerationError | BrokerAway | retry |
| a commit came too late | CommitFailedError | BrokerAway | retry |
| a topic is not there | UnknownTopicOrPartitionError | TopicMissing | stop |
| a topic was made anew | UnknownTopicIdError | TopicMissing | stop |
| the right to a topic is gone | TopicAuthorizationFailedError | AccessDenied | stop |
| the right to the group is gone | GroupAuthorizationFailedError | AccessDenied | stop |
| the right to transactions is gone | TransactionalIdAuthorizationFailedError | AccessDenied | stop |
| the credentials are refused | SaslAuthenticationFailedError | AccessDenied | stop |
| another has our place in the group | FencedInstanceIdError | Fenced | stop |
| another has our transactional id | ProducerFencedError | Fenced | stop |
| a record is larger than its topic takes | MessageSizeTooLargeError | PublishRefused | stop |
| the broker finds a record invalid | InvalidRecordError | PublishRefused | stop |
| a timestamp is outside of what its topic takes | InvalidTimestampError | PublishRefused | stop |
| a stored record is damaged | CorruptRecordError | Fatal | stop |
| anything else | PolicyViolationError | Fatal | stop |

A record that is refused is mended first, or another outcome is sent in its place (`core/mend`):
the worker stops where nothing is left to send. Without an exception: the client itself tries again on what a retry mends; `watch` notices a topic
that goes under way, `membership` a group that has not answered; `source` moves a position that
the log no longer has.

The library retries a first connection without end and then says only "Unable to bootstrap": a
wrong password, an unknown authority and a switched-off broker look the same. What went wrong each
time it tells its log alone, so a handler on its logger remembers the last lines.
"""

from __future__ import annotations

import logging
import re

from kafka import errors

from worker.errors import (
    AccessDenied,
    BrokerAway,
    Fatal,
    Fenced,
    InputDamaged,
    PublishRefused,
    StreamlabelError,
    TopicMissing,
)
from worker.kafka_io.portions import BatchUnreadable

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
            errors.InvalidTimestampError,
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

_ADVICE: dict[type[StreamlabelError], str] = {
    TopicMissing: " (`streamlabel topics create` makes the topics)",
    AccessDenied: " (grant it to this worker's user, then start the worker again)",
}
_DAMAGED = (
    ": the broker's copy is damaged; restore it from a replica, or move the group's offset of this "
    "partition past it"
)

# The broker told its version and then hung up. When its "no" and the end of the connection
# arrive together, the library drops the "no" (`_sock_recv` returns both, the error wins), so
# a wrong password looks like this about every other time. A broker that goes down looks like it
# too, and the lines may be those of a client beside this one: where the same settings were good
# enough before, it is no sign of a refusal.
_HANGS_UP = r"broker_version=\(.*socket disconnected"

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
    (
        _HANGS_UP,
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
        (
            "it hangs up at once: is it going down, or does this port want TLS (check "
            "kafka.security_protocol)?"
        ),
    ),
)


class Witness(logging.Handler):
    """Remembers which signs the library's complaints held, and the last one; no record is in them.

    A set of signs, not the lines: a client that fails logs some of them thousands of times.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.begin(let_in=False)

    def begin(self, *, let_in: bool) -> None:
        """Start anew, for a client whose like was let in before, or was not."""
        self.let_in = let_in
        self.signs: set[str] = set()
        self.last = "nothing answers"

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()
        self.signs.update(sign for sign, _, _ in _CAUSES if re.search(sign, self.last))


witness = Witness()


def translate(error: Exception) -> StreamlabelError:
    """What an exception of the client library means for the worker; unknown ones are `Fatal`."""
    if isinstance(error, StreamlabelError):
        return error
    if isinstance(error, errors.KafkaTimeoutError) and "Unable to bootstrap" in str(error):
        return _explained(error)
    for meaning, types in _MEANINGS:
        if isinstance(error, types):
            return meaning(_told(error, meaning))
    if isinstance(error, BatchUnreadable):
        return InputDamaged(error.words)
    if isinstance(error, errors.CorruptRecordError):
        return Fatal(f"Kafka: {plain(error)}{_DAMAGED}")
    return Fatal(f"Kafka: {type(error).__name__}: {error}")


def _told(error: Exception, meaning: type[StreamlabelError]) -> str:
    return f"Kafka: {plain(error)}{_ADVICE.get(meaning, '')}"


def plain(error: Exception) -> str:
    """The library's words, without its class name a second time."""
    words = getattr(error, "message", None) or getattr(error, "description", None)
    detail = "; ".join(str(arg) for arg in error.args if arg is not None)
    return f"{type(error).__name__}: {detail or words or 'no details'}"


def _explained(error: Exception) -> StreamlabelError:
    servers = re.sub(r"[\[\]']", "", str(error).rpartition(" from ")[2])
    for sign, meaning, words in _CAUSES:
        if sign == _HANGS_UP and witness.let_in:
            continue
        if sign in witness.signs:
            return meaning(f"can't connect to Kafka at {servers}: {words}")
    return BrokerAway(f"can't connect to Kafka at {servers}: {witness.last}")
