"""A worker whose password and whose broker's certificate are replaced while it runs.

All its connections end with each change, so it signs in again. One door of the broker asks for
SCRAM over TLS, the other one is open.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.chaos.administrator import Administrator
from tests.chaos.cluster import Cluster, cluster
from tests.chaos.security import USER, Security
from tests.conftest import Broker, Topics
from tests.support.doors import NumberedFeed, topics_behind
from tests.support.workers import WorkerThread, clock, running, wait_until
from worker.settings import read_environment

pytestmark = [pytest.mark.integration, pytest.mark.allow_errors]

DELIVERIES = ["at_least_once", "exactly_once"]
RECORDS = 20
_EACH_S = 2.0


@pytest.fixture(scope="module")
def guarded() -> Iterator[Cluster]:
    if not (home := read_environment("KAFKA_HOME")):
        pytest.skip("needs an Apache Kafka of its own to change: set KAFKA_HOME")
    with cluster("apache", Path(home), 1, sign_in="sasl_ssl") as made:
        yield made


@pytest.fixture
def open_door(guarded: Cluster) -> Broker:
    return Broker(guarded.bootstrap_servers, "apache", "its own")


@pytest.fixture
def topics(open_door: Broker) -> Topics:
    return topics_behind(open_door)


@pytest.fixture
def security(guarded: Cluster) -> Security:
    assert guarded.security
    return guarded.security


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """The lines that the worker logs."""
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def worker(
    guarded: Cluster, security: Security, topics: Topics, delivery: str
) -> Iterator[WorkerThread]:
    door = Broker(guarded.by_slot[0], "apache", "its own, with passwords")
    more = {path.replace(".", "__"): value for path, value in security.flags.items()}
    with running(door, topics, delivery=delivery, **more) as started:
        yield started


@pytest.fixture
def feed(open_door: Broker, topics: Topics, worker: WorkerThread) -> NumberedFeed:
    made = NumberedFeed(open_door, topics)
    made.send(RECORDS)
    made.wait(worker)
    return made


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_replaced_password_needs_no_restart(
    guarded: Cluster,
    security: Security,
    feed: NumberedFeed,
    worker: WorkerThread,
    lines: list[EventDict],
) -> None:
    """The broker has the new password first; the worker waits until its file has it too."""
    security.make_password()
    Administrator(guarded.bootstrap_servers).set_password(USER, security.password)
    hang_up_until(guarded, lambda: said(lines, "the broker refuses the password, trying again"))
    feed.send(RECORDS)
    security.write_password()
    feed.wait(worker)
    verify(feed, worker)


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_replaced_certificate_needs_no_restart(
    guarded: Cluster, security: Security, feed: NumberedFeed, worker: WorkerThread
) -> None:
    """The worker trusts both authorities for a while, and then the new one alone."""
    security.make_pair()
    security.trust(old=True)
    Administrator(guarded.bootstrap_servers).configure_broker(1, security.keystores)
    for _ in range(2):
        end_connections(guarded)
        feed.send(RECORDS)
        feed.wait(worker)
        security.trust(old=False)
    verify(feed, worker)


def verify(feed: NumberedFeed, worker: WorkerThread) -> None:
    worker.stop()
    assert feed.verify()["published"] == feed.sent


def said(lines: list[EventDict], event: str) -> bool:
    return any(line["event"] == event for line in lines)


def end_connections(guarded: Cluster) -> None:
    assert guarded.wires
    guarded.wires.hang_up()


def hang_up_until(guarded: Cluster, condition: Callable[[], bool]) -> None:
    """End connections again and again: a broker applies a change a while after it accepts it."""
    hung_up_at = -_EACH_S

    def met() -> bool:
        nonlocal hung_up_at
        if clock.monotonic() >= hung_up_at + _EACH_S:
            end_connections(guarded)
            hung_up_at = clock.monotonic()
        return condition()

    wait_until(met, what="the worker meets the change")
