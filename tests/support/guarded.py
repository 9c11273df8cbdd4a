"""An Apache Kafka with authentication, where the user `worker` has only the granted rights."""

from __future__ import annotations

from collections.abc import Sequence

from kafka import KafkaAdminClient
from kafka.admin import (
    ACL,
    ACLFilter,
    ACLOperation,
    ACLPermissionType,
    ACLResourcePatternType,
    ResourcePattern,
    ResourcePatternFilter,
    ResourceType,
)

from tests.conftest import Topics

TOPICS = Topics("in", "out", "dead", "group", 1)

_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
GUARDED = {
    "listener.security.protocol.map": "PLAINTEXT:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
    "inter.broker.listener.name": "PLAINTEXT",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "sasl.enabled.mechanisms": "PLAIN",
    "listener.name.plaintext.plain.sasl.jaas.config": (
        f'{_LOGIN} username="admin" password="a" user_admin="a" user_worker="w";'
    ),
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:admin;User:ANONYMOUS",
}
ADMIN = {
    "security_protocol": "SASL_PLAINTEXT",
    "sasl_mechanism": "PLAIN",
    "sasl_plain_username": "admin",
    "sasl_plain_password": "a",
}
WORKER = {
    "kafka__security_protocol": "SASL_PLAINTEXT",
    "kafka__sasl_mechanism": "PLAIN",
    "kafka__sasl_username": "worker",
    "kafka__sasl_password": "w",
    "kafka__session_timeout": 6,  # the group waits for a member without the right to leave
}
AUDITOR = (
    *("--kafka-security-protocol", "SASL_PLAINTEXT", "--kafka-sasl-mechanism", "PLAIN"),
    *("--kafka-sasl-username", "admin", "--kafka-sasl-password", "a"),
)

Right = tuple[ResourceType, str, ACLOperation]
RIGHTS: dict[str, Right] = {
    "input": (ResourceType.TOPIC, TOPICS.input, ACLOperation.READ),
    "output": (ResourceType.TOPIC, TOPICS.output, ACLOperation.WRITE),
    "dead letters": (ResourceType.TOPIC, TOPICS.dead, ACLOperation.WRITE),
    "group": (ResourceType.GROUP, TOPICS.group, ACLOperation.READ),
}
# Only `delivery = "exactly_once"` needs it.
TRANSACTIONS: Right = (
    ResourceType.TRANSACTIONAL_ID,
    f"{TOPICS.group}-",
    ACLOperation.WRITE,
)
# Without them a worker assumes default limits of the topics.
CONFIGS: list[Right] = [
    (ResourceType.TOPIC, name, ACLOperation.DESCRIBE_CONFIGS)
    for name in (TOPICS.input, TOPICS.output, TOPICS.dead)
]


def grant(admin: KafkaAdminClient, rights: Sequence[Right]) -> None:
    """Return once the broker applies it."""
    allow = ACLPermissionType.ALLOW
    answer = admin.create_acls(
        [
            ACL("User:worker", "*", operation, allow, ResourcePattern(kind, name, _extent(name)))
            for kind, name, operation in rights
        ]
    )
    assert not answer["failed"], answer


def take_away(admin: KafkaAdminClient, right: Right) -> None:
    """Return once the broker applies it."""
    kind, name, operation = right
    pattern = ResourcePatternFilter(kind, name, _extent(name))
    admin.delete_acls([ACLFilter("User:worker", "*", operation, ACLPermissionType.ALLOW, pattern)])


def _extent(name: str) -> ACLResourcePatternType:
    prefix = name.endswith("-")
    return ACLResourcePatternType.PREFIXED if prefix else ACLResourcePatternType.LITERAL
