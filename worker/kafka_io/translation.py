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

A record that is refused is mended first, or another outcome is sent in its place (`core/replacement`):
the worker stops where nothing is left to send. Without an exception: the client itself tries again on what a retry mends; `watch` notices a topic
that goes under way, `membership` a group that has not answered; `source` moves a position that
the log no longer has.
"""

from __future__ import annotations

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
from worker.kafka_io.causes import Verdict, witness
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

_GRANT = "grant it to this worker's user, then start the worker again"
# Advice by exception; first match wins.
_ADVICE: dict[tuple[type[Exception], ...], str] = {
    (
        errors.UnknownTopicOrPartitionError,
        errors.UnknownTopicIdError,
        errors.InvalidTopicError,
    ): "`streamlabel topics create` makes the topics",
    (errors.SaslAuthenticationFailedError,): "check kafka.sasl_username and kafka.sasl_password",
    (errors.TopicAuthorizationFailedError,): (
        "READ on the input topic, WRITE on the two others is needed, and CREATE to make them: "
        f"{_GRANT}"
    ),
    (errors.GroupAuthorizationFailedError,): f"READ on the group is needed: {_GRANT}",
    (errors.TransactionalIdAuthorizationFailedError,): (
        "exactly once needs WRITE on the transactional ids that begin with kafka.group_id and a "
        f"dash: {_GRANT}"
    ),
    (errors.AuthorizationError,): _GRANT,
    (errors.InconsistentGroupProtocolError,): (
        "clients of another kind are in this group and share its partitions by other rules: stop "
        "them, or set a kafka.group_id of this worker's own"
    ),
    (errors.InvalidSessionTimeoutError,): (
        "set kafka.session_timeout between group.min.session.timeout.ms and "
        "group.max.session.timeout.ms of the broker, 6 s and 1,800 s unless they were changed"
    ),
    (errors.NodeNotReadyError,): "no known broker can be reached now",
    (errors.CorruptRecordError,): (
        "the broker's copy is damaged; restore it from a replica, or move the group's offset of "
        "this partition past it"
    ),
}


def translate(error: Exception) -> StreamlabelError:
    """What an exception of the client library means for the worker; unknown ones are `Fatal`."""
    if isinstance(error, StreamlabelError):
        return error
    if isinstance(error, errors.KafkaTimeoutError) and "Unable to bootstrap" in str(error):
        return _explained(error)
    told = f"Kafka: {plain(error)}{_advice(error)}"
    for meaning, types in _MEANINGS:
        if isinstance(error, types):
            return meaning(told)
    if isinstance(error, BatchUnreadable):
        return InputDamaged(error.words)
    return Fatal(told)


def _advice(error: Exception) -> str:
    return next((f" ({words})" for types, words in _ADVICE.items() if isinstance(error, types)), "")


def plain(error: Exception) -> str:
    """The library's words, without its class name a second time."""
    words = getattr(error, "message", None) or getattr(error, "description", None)
    detail = "; ".join(str(arg) for arg in error.args if arg is not None)
    return f"{type(error).__name__}: {detail or words or 'no details'}"


def _explained(error: Exception) -> StreamlabelError:
    servers = re.sub(r"[\[\]']", "", str(error).rpartition(" from ")[2])
    return (witness.verdict() or Verdict(BrokerAway, witness.last)).error(servers)
