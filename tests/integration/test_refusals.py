"""A worker refused by the cluster says which right or setting it needs; `check` finds it first."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.coordinator.assignors.range import RangePartitionAssignor
from structlog.testing import capture_logs

from tests.conftest import Broker
from tests.support.guarded import (
    ADMIN,
    CONFIGS,
    GUARDED,
    RIGHTS,
    TOPICS,
    TRANSACTIONS,
    WORKER,
    Right,
    grant,
    take_away,
)
from tests.support.own_kafka import admin_of, named, own_kafka
from tests.support.workers import flags, running, texts, wait_until
from worker.cli.verdicts import broker as check_broker
from worker.cli.verdicts import rights as check_rights
from worker.errors import AccessDenied, BrokerAway, Fatal, StreamlabelError
from worker.settings import Settings, load

pytestmark = [
    pytest.mark.integration,
    pytest.mark.allow_errors,
    pytest.mark.allow_threads,  # the admin client of this module
]

SETUP = Path(__file__).parents[2] / "docs/setup.md"
SLOWEST_SESSION = 20  # seconds; the broker allows no more, and the default is higher

Cluster = tuple[Broker, KafkaAdminClient]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    allowed = {"group.max.session.timeout.ms": str(SLOWEST_SESSION * 1000)}
    with own_kafka(GUARDED | allowed) as kafka, admin_of(kafka, TOPICS, **ADMIN) as admin:
        grant(admin, [*RIGHTS.values(), TRANSACTIONS, *CONFIGS])
        settings = chosen(named(kafka), delivery="exactly_once")
        wait_until(lambda: all_is_well(settings), what="the authorizer has heard of it")
        yield named(kafka), admin


def chosen(broker: Broker, **more: Any) -> Settings:
    mine = {name.replace("__", "."): value for name, value in (WORKER | more).items()}
    return load(flags(broker, TOPICS) | mine, environ={}).settings


def told(settings: Settings) -> str:
    """Return the lines of `check` about rights."""
    try:
        return check_rights(settings).detail
    except StreamlabelError as error:
        return str(error)


def all_is_well(settings: Settings) -> bool:
    return "lacks" not in told(settings) and check_rights(settings).warnings == ()


def stopped(broker: Broker, **more: Any) -> BaseException:
    """Return the error that ends the worker."""
    with running(broker, TOPICS, **(WORKER | more)) as worker:
        worker.join(90)
    assert worker.error is not None
    return worker.error


def words(right: Right) -> str:
    kind, name, operation = right
    prefix = "transactional ids with the prefix"
    return f"{operation.name} on {prefix if name.endswith('-') else kind.name.lower()} {name}"


# -- rights ------------------------------------------------------------------------------------


def test_the_docs_list_the_rights_that_are_tried_here() -> None:
    table = SETUP.read_text(encoding="utf-8")
    for row in (
        "| the input topics | READ | `run` |",
        "| topics `output.topic` and `output.dead_letter_topic` | WRITE | `run` |",
        "| group `kafka.group_id` | READ | `run` |",
        "| transactional ids with the prefix `<kafka.group_id>-` | WRITE | `run` with",
        "| the input and output topics | DESCRIBE_CONFIGS | `run`, to know",
    ):
        assert row in table


@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_worker_needs_no_rights_beyond_the_documented_ones(
    cluster: Cluster, delivery: str
) -> None:
    broker, _ = cluster
    assert check_rights(chosen(broker, delivery=delivery)).warnings == ()
    with running(broker, TOPICS, **WORKER, delivery=delivery) as worker:
        producer = KafkaProducer(bootstrap_servers=broker.bootstrap_servers, **ADMIN)
        with contextlib.closing(producer):
            for key, value in texts(5):
                producer.send(TOPICS.input, key=key, value=value)
        wait_until(lambda: worker.published == 5, what="it works")


@pytest.mark.parametrize("lost", [*RIGHTS.values(), TRANSACTIONS], ids=[*RIGHTS, "transactions"])
def test_check_finds_each_missing_right(cluster: Cluster, lost: Right) -> None:
    broker, admin = cluster
    settings = chosen(broker, delivery="exactly_once")
    take_away(admin, lost)
    lacking = f"worker lacks {words(lost)}: grant that"
    wait_until(lambda: told(settings) == lacking, what=f"check says {lacking!r}")
    grant(admin, [lost])
    wait_until(lambda: all_is_well(settings), what="all is well again")


def test_check_warns_where_a_topics_limits_can_not_be_known(cluster: Cluster) -> None:
    broker, admin = cluster
    settings = chosen(broker)
    take_away(admin, CONFIGS[0])
    wait_until(lambda: not all_is_well(settings), what="check warns")
    (warning,) = check_rights(settings).warnings
    assert "worker lacks DESCRIBE_CONFIGS on topic in: the worker learns the limits" in warning
    grant(admin, [CONFIGS[0]])
    wait_until(lambda: all_is_well(settings), what="all is well again")


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (TRANSACTIONS, r"transactional id 'group-\w+'.* WRITE on .* with the prefix 'group-'"),
        (RIGHTS["group"], r"GroupAuthorizationFailed.*group.*needs READ on the group"),
        (RIGHTS["input"], r"TopicAuthorizationFailed.*in.*READ on the input topics"),
    ],
    ids=["transactions", "group", "input"],
)
def test_a_worker_without_a_right_names_the_right_to_grant(
    cluster: Cluster, lost: Right, said: str
) -> None:
    broker, admin = cluster
    settings = chosen(broker, delivery="exactly_once")
    take_away(admin, lost)
    wait_until(lambda: not all_is_well(settings), what="the right is gone")
    with pytest.raises(AccessDenied, match=said):
        raise stopped(broker, delivery="exactly_once")
    grant(admin, [lost])
    wait_until(lambda: all_is_well(settings), what="the right is back")


# -- the group ---------------------------------------------------------------------------------


def test_a_session_timeout_that_the_broker_does_not_allow_is_named(cluster: Cluster) -> None:
    broker, _ = cluster
    advice = "set kafka.session_timeout between group.min.session.timeout.ms"
    assert advice in told(chosen(broker, kafka__session_timeout=SLOWEST_SESSION + 1))
    error = stopped(broker, kafka__session_timeout=SLOWEST_SESSION + 1)
    assert type(error) is Fatal
    assert advice in str(error)


def test_clients_of_another_kind_in_the_group_are_named(cluster: Cluster) -> None:
    broker, _ = cluster
    consumer = KafkaConsumer(
        TOPICS.input,
        bootstrap_servers=broker.bootstrap_servers,
        group_id=TOPICS.group,
        partition_assignment_strategy=[RangePartitionAssignor],
        session_timeout_ms=SLOWEST_SESSION * 1000,
        **ADMIN,
    )
    with contextlib.closing(consumer):
        wait_until(lambda: bool(consumer.poll(500)) or bool(consumer.assignment()), what="it is in")
        advice = "set a kafka.group_id of this worker's own"
        assert advice in told(chosen(broker))
        error = stopped(broker)
        assert type(error) is Fatal
        assert advice in str(error)


def test_check_disturbs_no_member_of_the_group(cluster: Cluster) -> None:
    broker, admin = cluster
    with running(broker, TOPICS, **WORKER) as worker:
        wait_until(lambda: state(admin) == "Stable", what="it has joined")
        before = members(admin)
        for _ in range(3):
            check_rights(chosen(broker))
            assert (state(admin), members(admin)) == ("Stable", before)
        assert worker.value("streamlabel_rebalances_total", kind="assigned") == 1


def state(admin: KafkaAdminClient) -> str:
    found: str = admin.describe_groups([TOPICS.group])[TOPICS.group]["group_state"]
    return found


def members(admin: KafkaAdminClient) -> list[str]:
    described = admin.describe_groups([TOPICS.group])[TOPICS.group]
    return [member["member_id"] for member in described["members"]]


# -- addresses ---------------------------------------------------------------------------------


def test_an_advertised_address_that_can_not_be_resolved_is_named() -> None:
    """The bootstrap server answers with an address that does not exist."""
    wrong = {"advertised.listeners": "PLAINTEXT://nowhere.invalid:9092"}
    said = r"answers, but broker 1 sends clients to nowhere.invalid:9092, which can.t be resolved"
    with own_kafka(wrong) as kafka:
        broker = named(kafka)
        settings = load(flags(broker, TOPICS), environ={}).settings
        with pytest.raises(BrokerAway, match=said):
            check_broker(settings)
        with capture_logs() as lines, running(broker, TOPICS) as worker:
            wait_until(lambda: any(re.search(said, str(line)) for line in lines), what="it says so")
            assert worker.progress.live()[0]
