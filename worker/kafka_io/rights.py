"""Tries every right that a worker needs, and what else the group's coordinator may refuse.

Called by `streamlabel check`; blocks. It reads, writes and commits nothing, and does not disturb the
group. Translates the client's exceptions; imports no inference and no runtime.

* Topics: the broker is asked which operations this user may do on each.
* The group: a join under a member's name that nobody has. The broker checks the right, the session
  timeout and the rules by which partitions are shared before it answers that it knows no such
  member, and the group stays as it is.
* Transactions: a transactional id beside those of the workers, with the same prefix, is taken.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from kafka import KafkaAdminClient, KafkaProducer, errors
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.protocol.consumer import JoinGroupRequest

from worker.clock import Clock
from worker.errors import BrokerAway
from worker.kafka_io.connection import connect
from worker.kafka_io.translation import translate
from worker.settings import Settings

_PATIENCE, _PAUSE = 15.0, 0.25  # seconds; a new cluster makes its internal topics first
_NOBODY = "streamlabel-check"

Answer = TypeVar("Answer")


class Right(NamedTuple):
    """One right that a worker needs.

    Attributes:
        words: the operation and what it is on, such as "READ on topic posts".
        held: None where the broker does not tell.
        needed: a worker does without the others, but not as well.
    """

    words: str
    held: bool | None
    needed: bool = True


def try_rights(settings: Settings, clock: Clock) -> list[Right]:
    """Try them all.

    Raises:
        Fatal: the group can't be joined, or no transaction opened, for another reason than rights.
        BrokerAway: no answer.
    """
    client = connect(KafkaAdminClient, settings.kafka)
    with contextlib.closing(client):
        found = _retry_until_stopped(clock, lambda: _on_topics(client, settings))
        may_join = _retry_until_stopped(clock, lambda: _may_join(client, settings))
    found.append(Right(f"READ on group {settings.kafka.group_id}", may_join))
    if settings.delivery == "exactly_once":
        words = f"WRITE on transactional ids with the prefix {settings.kafka.group_id}-"
        found.append(Right(words, _may_open_transactions(settings)))
    return found


def _retry_until_stopped(clock: Clock, attempt: Callable[[], Answer]) -> Answer:
    """A new cluster makes its internal topics at the first question: "not yet" is asked again."""
    give_up = clock.monotonic() + _PATIENCE
    while True:
        try:
            return attempt()
        except errors.KafkaError as error:
            meaning = translate(error)
            if not isinstance(meaning, BrokerAway) or clock.monotonic() >= give_up:
                raise meaning from error
        clock.sleep(_PAUSE)


def _on_topics(client: Any, settings: Settings) -> list[Right]:
    topics = settings.topics
    wanted = dict.fromkeys(topics.inputs, "READ") | dict.fromkeys(topics.outputs, "WRITE")
    described = client.describe_topics(list(wanted))
    return [
        Right(f"{operation} on topic {topic['name']}", _allows(topic, operation), needed)
        for topic in described
        if errors.for_code(topic["error_code"]) is not errors.UnknownTopicOrPartitionError
        for operation, needed in ((wanted[topic["name"]], True), ("DESCRIBE_CONFIGS", False))
    ]


def _allows(topic: dict[str, Any], operation: str) -> bool | None:
    error = errors.for_code(topic["error_code"])
    if error is errors.TopicAuthorizationFailedError:  # not even DESCRIBE, which the others imply
        return False
    told = topic.get("authorized_operations")
    return operation in told if told else None  # some brokers don't know the question


def _may_join(client: Any, settings: Settings) -> bool:
    try:
        answer: bool = client._manager.run(_join, client, settings)  # noqa: SLF001
    except errors.GroupAuthorizationFailedError:
        return False
    return answer


async def _join(client: Any, settings: Settings) -> bool:
    group = settings.kafka.group_id
    nodes = await client._find_coordinator_ids([group])  # noqa: SLF001 - no public way
    request = _join_request(settings)
    answer = await client._manager.send(request, node_id=nodes[group])  # noqa: SLF001
    error = errors.for_code(answer.error_code)
    if error is errors.UnknownMemberIdError:
        return True
    raise error(f"group {group!r}")


def _join_request(settings: Settings) -> Any:
    kafka, assignor = settings.kafka, CooperativeStickyAssignor()
    subscription = assignor.metadata({settings.input.topic}).encode()
    return JoinGroupRequest(
        group_id=kafka.group_id,
        session_timeout_ms=int(kafka.session_timeout * 1000),
        rebalance_timeout_ms=int(kafka.max_poll_interval * 1000),
        member_id=_NOBODY,
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
        max_block_ms=int(_PATIENCE * 1000),
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
