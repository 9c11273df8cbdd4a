"""Translates the client library's exceptions into the worker's errors.

Owns: the table of exceptions.
Thread: any.
Must not import: inference, runtime.

`core/faults.py` derives a disposition from the error; a test verifies this table.

| fault | the client's exception | the worker's error | disposition |
|---|---|---|---|
| a broker restarts or is killed | KafkaConnectionError | BrokerAway | retry |
| no answer in time | KafkaTimeoutError | BrokerAway | retry |
| a leader changes | NotLeaderForPartitionError | BrokerAway | retry |
| a leader is being elected | LeaderNotAvailableError | BrokerAway | retry |
| too few replicas are in sync | NotEnoughReplicasError | BrokerAway | retry |
| too few replicas, after the write | NotEnoughReplicasAfterAppendError | BrokerAway | retry |
| a broker's disk is full or gone | KafkaStorageError | BrokerAway | retry |
| a quota is exceeded | ThrottlingQuotaExceededError | BrokerAway | retry |
| the group's coordinator moves | NotCoordinatorError | BrokerAway | retry |
| the coordinator is still loading | CoordinatorLoadInProgressError | BrokerAway | retry |
| a rebalance is under way | RebalanceInProgressError | BrokerAway | retry |
| the group has removed this member | UnknownMemberIdError | BrokerAway | retry |
| the group has a newer generation | IllegalGenerationError | BrokerAway | retry |
| a commit came too late | CommitFailedError | BrokerAway | retry |
| a topic does not exist | UnknownTopicOrPartitionError | TopicMissing | stop |
| a topic was recreated | UnknownTopicIdError | TopicMissing | stop |
| no right to a topic | TopicAuthorizationFailedError | AccessDenied | stop |
| no right to the group | GroupAuthorizationFailedError | AccessDenied | stop |
| no right to transactions | TransactionalIdAuthorizationFailedError | AccessDenied | stop |
| the credentials are refused | SaslAuthenticationFailedError | AccessDenied | stop |
| another member has this group.instance.id | FencedInstanceIdError | Fenced | stop |
| another producer has this transactional id | ProducerFencedError | Fenced | stop |
| a record is larger than its topic allows | MessageSizeTooLargeError | PublishRefused | stop |
| the broker finds a record invalid | InvalidRecordError | PublishRefused | stop |
| a timestamp is outside its topic's limits | InvalidTimestampError | PublishRefused | stop |
| a stored record is damaged | CorruptRecordError | Fatal | stop |
| anything else | PolicyViolationError | Fatal | stop |

A refused record is first replaced by another outcome (`core/replacement`); the worker stops if
there is none. Some faults raise no exception: the client retries transient faults, `topic_watch`
notices a deleted topic, `membership` a group that does not answer, and `source` moves a position
that the log no longer has.
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
from worker.kafka_io.bounded_poll import BatchUnreadable
from worker.kafka_io.causes import client_log

# The worker's error -> the client's exceptions; the first match wins. `RetriableError` is the base
# of all exceptions that the library calls retriable.
_ERROR_TYPES: tuple[tuple[type[StreamlabelError], tuple[type[Exception], ...]], ...] = (
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
            # The group has removed or overtaken this member: the next poll joins it again.
            errors.CommitFailedError,
            errors.RebalanceInProgressError,
            errors.IllegalGenerationError,
            errors.UnknownMemberIdError,
            ConnectionError,
            TimeoutError,
        ),
    ),
)

_GRANT = "grant it to this worker's user, then restart the worker"
# Advice by exception; the first match wins.
_ADVICE: dict[tuple[type[Exception], ...], str] = {
    (
        errors.UnknownTopicOrPartitionError,
        errors.UnknownTopicIdError,
        errors.InvalidTopicError,
    ): "`streamlabel topics create` creates the topics",
    (errors.SaslAuthenticationFailedError,): "check kafka.sasl_username and kafka.sasl_password",
    (errors.TopicAuthorizationFailedError,): (
        "the worker needs READ on the input topics, WRITE on the others, and CREATE to create "
        "them: "
        f"{_GRANT}"
    ),
    (errors.GroupAuthorizationFailedError,): f"the worker needs READ on the group: {_GRANT}",
    (errors.TransactionalIdAuthorizationFailedError,): (
        "exactly once requires WRITE on the transactional ids that begin with kafka.group_id and a "
        f"dash: {_GRANT}"
    ),
    (errors.AuthorizationError,): _GRANT,
    (errors.InconsistentGroupProtocolError,): (
        "other clients in this group use another partition assignment strategy: stop them, or set "
        "a kafka.group_id of this worker's own"
    ),
    (errors.InvalidSessionTimeoutError,): (
        "set kafka.session_timeout between group.min.session.timeout.ms and "
        "group.max.session.timeout.ms of the broker, by default 6 s and 1,800 s"
    ),
    (errors.NodeNotReadyError,): "no known broker can be reached now",
    (errors.CorruptRecordError,): (
        "the broker's copy is damaged: restore it from a replica, or move the group's offset of "
        "this partition past it"
    ),
}


def translate(error: Exception) -> StreamlabelError:
    """Return the worker's error for an exception of the client; `Fatal` for an unknown one."""
    if isinstance(error, StreamlabelError):
        return error
    if isinstance(error, errors.KafkaTimeoutError) and "Unable to bootstrap" in str(error):
        return _connect_error(error)
    text = f"Kafka: {describe(error)}{_advice(error)}"
    for error_type, exceptions in _ERROR_TYPES:
        if isinstance(error, exceptions):
            return error_type(text)
    if isinstance(error, BatchUnreadable):
        return InputDamaged(error.text)
    return Fatal(text)


def _advice(error: Exception) -> str:
    advice = (text for exceptions, text in _ADVICE.items() if isinstance(error, exceptions))
    return next((f" ({text})" for text in advice), "")


def describe(error: Exception) -> str:
    """Return the exception's class and message, without its class name a second time."""
    default = getattr(error, "message", None) or getattr(error, "description", None)
    detail = "; ".join(str(arg) for arg in error.args if arg is not None)
    return f"{type(error).__name__}: {detail or default or 'no details'}"


def _connect_error(error: Exception) -> StreamlabelError:
    servers = re.sub(r"[\[\]']", "", str(error).rpartition(" from ")[2])
    return client_log.diagnosis().error(servers)
