"""Checks every permission that a worker needs, and what else the group's coordinator may refuse.

Owns: nothing.
Thread: main; blocks.
Must not import: inference, runtime.

It reads, writes and commits nothing, and does not disturb the group.

* Topics: the broker lists the operations that this user may perform on each.
* The group: a join under an unknown member id. The broker checks the permission, the session
  timeout and the assignment strategy before it answers that it knows no such member, so the group
  does not change.
* Transactions: initialize a transactional id with the same prefix as those of the workers.
"""

from __future__ import annotations

import contextlib
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaProducer, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor

from worker.clock import Clock
from worker.kafka_io.admin import CREATION_TIME, resolved, retry_while_away
from worker.kafka_io.connection import connect
from worker.kafka_io.internals import JoinGroupRequest, ask_coordinator
from worker.kafka_io.translation import translate
from worker.settings import Settings, WorkerTopics

_UNKNOWN_MEMBER = "streamlabel-check"


class Right(NamedTuple):
    """One permission of this user.

    Attributes:
        words: the operation and its resource, such as "READ on topic posts".
        held: None if the broker does not say.
        needed: whether a worker can't run without it.
    """

    words: str
    held: bool | None
    needed: bool = True


def try_rights(settings: Settings, clock: Clock) -> list[Right]:
    """Check them all.

    Raises:
        Fatal: the group can't be joined, or no transaction opened, for another reason.
        BrokerAway: no answer.
    """
    topics = resolved(settings)
    client = connect(KafkaAdminClient, settings.kafka)
    with contextlib.closing(client):
        rights = retry_while_away(clock, lambda: _on_topics(client, topics))
        may_join = retry_while_away(clock, lambda: _may_join(client, settings, topics))
    rights.append(Right(f"READ on group {settings.kafka.group_id}", may_join))
    if settings.delivery == "exactly_once":
        words = f"WRITE on transactional ids with the prefix {settings.kafka.group_id}-"
        rights.append(Right(words, _may_open_transactions(settings)))
    return rights


def _on_topics(client: Any, topics: WorkerTopics) -> list[Right]:
    operations = dict.fromkeys(topics.inputs, "READ") | dict.fromkeys(topics.outputs, "WRITE")
    described = client.describe_topics(list(operations))
    return [
        Right(f"{operation} on topic {topic['name']}", _allows(topic, operation), needed)
        for topic in described
        if errors.for_code(topic["error_code"]) is not errors.UnknownTopicOrPartitionError
        for operation, needed in ((operations[topic["name"]], True), ("DESCRIBE_CONFIGS", False))
    ]


def _allows(topic: dict[str, Any], operation: str) -> bool | None:
    error = errors.for_code(topic["error_code"])
    if error is errors.TopicAuthorizationFailedError:  # not even DESCRIBE, which the others imply
        return False
    authorized = topic.get("authorized_operations")
    return operation in authorized if authorized else None  # some brokers don't list them


def _may_join(client: Any, settings: Settings, topics: WorkerTopics) -> bool:
    group = settings.kafka.group_id
    try:
        response = ask_coordinator(client, group, _join_request(settings, topics))
    except errors.GroupAuthorizationFailedError:
        return False
    error = errors.for_code(response.error_code)
    if error is errors.GroupAuthorizationFailedError:
        return False
    if error is not errors.UnknownMemberIdError:
        raise error(f"group {group!r}")
    return True


def _join_request(settings: Settings, topics: WorkerTopics) -> Any:
    kafka, assignor = settings.kafka, CooperativeStickyAssignor()
    subscription = assignor.metadata(set(topics.inputs)).encode()
    return JoinGroupRequest(
        group_id=kafka.group_id,
        session_timeout_ms=int(kafka.session_timeout * 1000),
        rebalance_timeout_ms=int(kafka.max_poll_interval * 1000),
        member_id=_UNKNOWN_MEMBER,
        group_instance_id=None,
        protocol_type="consumer",
        protocols=[JoinGroupRequest.JoinGroupRequestProtocol(assignor.name, subscription)],
        max_version=7,
    )


def _may_open_transactions(settings: Settings) -> bool:
    producer = connect(
        KafkaProducer,
        settings.kafka,
        transactional_id=f"{settings.kafka.group_id}-check",
        transaction_timeout_ms=int(settings.transaction_timeout * 1000),
        max_block_ms=int(CREATION_TIME * 1000),
    )
    try:
        producer.init_transactions()
    except errors.TransactionalIdAuthorizationFailedError:
        return False
    except errors.KafkaError as error:
        raise translate(error) from error
    finally:
        producer.close(timeout=1)
    return True
