"""A worker that signs in by OAUTHBEARER, with tokens that end, and issuers and brokers at fault.

The broker verifies tokens itself. It ends a connection whose token has ended, or that has not
signed in again within two seconds.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from structlog.typing import EventDict

from tests.conftest import Broker, Topics
from tests.support.doors import NumberedFeed, topics_behind
from tests.support.oauth import LISTENER, OAUTH, Endpoint, Issuer
from tests.support.own_kafka import named, own_kafka
from tests.support.workers import (
    WorkerProcess,
    WorkerThread,
    audit,
    check,
    flags,
    running,
    wait_until,
)
from worker.errors import AccessDenied
from worker.kafka_io.tokens import TokenProvider
from worker.settings import child_environment, options

pytestmark = [pytest.mark.integration, pytest.mark.allow_errors]

Run = Callable[..., AbstractContextManager[WorkerThread]]

LIFE = 4  # seconds, of a token
DELIVERIES = ["at_least_once", "exactly_once"]


@pytest.fixture(scope="module")
def issuer(tmp_path_factory: pytest.TempPathFactory) -> Issuer:
    return Issuer(tmp_path_factory.mktemp("keys"))


@pytest.fixture(scope="module")
def brokers(issuer: Issuer) -> Iterator[tuple[Broker, Broker]]:
    """Return one broker at two addresses: without sign-in, and with tokens."""
    properties = issuer.broker(connections_max_reauth_ms="2000")
    with own_kafka(properties, doors={LISTENER: ()}, java=issuer.java) as kafka:
        port = kafka.nodes[0].listeners[LISTENER]
        yield named(kafka), Broker(f"127.0.0.1:{port}", "apache", "its own, with tokens")


@pytest.fixture
def open_door(brokers: tuple[Broker, Broker]) -> Broker:
    """The broker's address without sign-in."""
    return brokers[0]


@pytest.fixture
def guarded_door(brokers: tuple[Broker, Broker]) -> Broker:
    """The broker's address for tokens."""
    return brokers[1]


@pytest.fixture
def topics(open_door: Broker) -> Topics:
    return topics_behind(open_door)


@pytest.fixture
def endpoint(issuer: Issuer) -> Iterator[Endpoint]:
    with Endpoint(issuer) as listening:
        listening.life = LIFE
        yield listening


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """The lines that the worker logs."""
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def sign_ins(monkeypatch: pytest.MonkeyPatch) -> list[TokenProvider]:
    """One item for each token that the broker has accepted."""
    accepted: list[TokenProvider] = []
    accept = TokenProvider.accept

    def note(provider: TokenProvider) -> None:
        accepted.append(provider)
        accept(provider)

    monkeypatch.setattr(TokenProvider, "accept", note)
    return accepted


@pytest.fixture
def run(guarded_door: Broker, topics: Topics) -> Run:
    """`run(**options)` runs a worker at the door for tokens."""
    return functools.partial(running, guarded_door, topics)


@pytest.fixture
def feed(open_door: Broker, topics: Topics) -> NumberedFeed:
    return NumberedFeed(open_door, topics)


def reasons(lines: list[EventDict], event: str) -> list[str]:
    return [str(line.get("reason")) for line in lines if line["event"] == event]


def as_flags(given: dict[str, Any]) -> list[str]:
    chosen = {name.replace("__", "."): value for name, value in given.items()}
    return [f"{one.flag}={chosen[one.path]}" for one in options() if one.path in chosen]


# -- tokens that end ---------------------------------------------------------------------------


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_worker_outlives_its_tokens(
    run: Run,
    endpoint: Endpoint,
    feed: NumberedFeed,
    sign_ins: list[TokenProvider],
    delivery: str,
) -> None:
    """All its clients share one token, and sign in again on the connections that they have."""
    signed = endpoint.options | {"kafka__sasl_oauth_extensions": "logicalCluster=lkc-1,a=b"}
    with run(**signed, delivery=delivery) as worker:
        feed.send_until(worker, lambda: len(endpoint.asked) >= 4, "tokens have ended")
    assert worker.error is None
    assert len(set(sign_ins)) == 1
    assert len(sign_ins) > 2 * len(endpoint.asked)
    assert feed.verify()["duplicated"] == 0


def test_a_token_file_is_read_again_when_a_token_ends(
    run: Run,
    issuer: Issuer,
    feed: NumberedFeed,
    lines: list[EventDict],
    sign_ins: list[TokenProvider],
    tmp_path: Path,
) -> None:
    """Without a new token the worker waits, names the file, and goes on with the next one."""
    file = tmp_path / "token"
    signed = OAUTH | {"kafka__sasl_oauth_token_file": file}

    def write(life: float) -> None:
        new = file.with_suffix(".new")
        new.write_text(issuer.token(life))
        new.replace(file)

    def labelled() -> bool:
        write(LIFE)  # a round may take longer than a token lives
        return worker.published >= feed.sent

    write(LIFE)
    with run(**signed) as worker:
        while len(sign_ins) <= 20:
            feed.send()
            wait_until(labelled, what="all is labelled, also once tokens have ended")
        wait_until(lambda: not worker.progress.ready()[0], what="the last token has ended")
        feed.send()
        assert worker.error is None
        write(600)
        wait_until(lambda: worker.published == feed.sent, what="it goes on")
        wait_until(lambda: worker.progress.ready()[0], what="it is ready again")
    reason = reasons(lines, "no token, trying again")[-1]
    assert f"the token in kafka.sasl_oauth_token_file = {file} ended " in reason
    assert feed.verify()["duplicated"] == 0


# -- the endpoint is away ------------------------------------------------------------------------


def test_an_endpoint_that_is_away_at_the_start_is_waited_for(
    run: Run,
    endpoint: Endpoint,
    feed: NumberedFeed,
    lines: list[EventDict],
) -> None:
    endpoint.go_down()
    feed.send()
    told = "broker is unreachable, retrying"
    with run(**endpoint.options) as worker:
        wait_until(lambda: bool(reasons(lines, told)), what="it says so")
        assert not worker.progress.ready()[0]
        assert worker.progress.live()[0]
        endpoint.go_up()
        wait_until(lambda: worker.published == feed.sent, what="it goes on")
    assert f"the token endpoint {endpoint.url} does not answer" in reasons(lines, told)[0]
    assert feed.verify()["duplicated"] == 0


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_an_endpoint_that_is_away_while_a_token_ends_loses_nothing(
    run: Run,
    endpoint: Endpoint,
    feed: NumberedFeed,
    lines: list[EventDict],
    delivery: str,
) -> None:
    with run(**endpoint.options, delivery=delivery) as worker:
        feed.send_until(worker, lambda: len(endpoint.asked) >= 2, "it works")
        endpoint.go_down()
        feed.send()
        wait_until(lambda: not worker.progress.ready()[0], what="the last token has ended")
        feed.send()
        assert worker.progress.live()[0]
        endpoint.go_up()
        wait_until(lambda: worker.published >= feed.sent, what="it goes on")
    assert worker.error is None
    assert f"the token endpoint {endpoint.url}" in reasons(lines, "no new token, trying again")[0]
    assert feed.verify()["duplicated"] == 0


# -- refusals ----------------------------------------------------------------------------------


def test_a_refused_client_ends_the_process_after_one_try(
    guarded_door: Broker, topics: Topics, endpoint: Endpoint, tmp_path: Path
) -> None:
    """The log and `check` have the endpoint's words, and never the secret."""
    given = as_flags(endpoint.options | {"kafka__sasl_oauth_client_secret": "not-the-secret"})
    worker = WorkerProcess(guarded_door, topics, "bundled", tmp_path / "log", *given)
    assert worker.process.wait(120) == 1
    log = worker.log.read_text()
    assert "refuses the client 'labeller' (HTTP 401, invalid_client: Wrong client secret)" in log
    assert "not-the-secret" not in log
    assert "trying" not in log, "neither a retry of the token nor one of the connection"
    assert len(endpoint.asked) == 1


@pytest.mark.parametrize("delivery", DELIVERIES)
def test_a_client_that_is_refused_under_way_stops_when_its_token_ends(
    run: Run, topics: Topics, endpoint: Endpoint, feed: NumberedFeed, delivery: str
) -> None:
    """Its secret may have been replaced: a restart reads the new one."""
    with run(**endpoint.options, delivery=delivery) as worker:
        feed.send_until(worker, lambda: len(endpoint.asked) >= 2, "it works")
        endpoint.answer = 401, b'{"error": "invalid_client"}'
        feed.send()
        worker.join(90)
    assert isinstance(worker.error, AccessDenied)
    assert "refuses the client 'labeller' (HTTP 401, invalid_client)" in str(worker.error)
    endpoint.answer = None
    again = endpoint.options | {"kafka__client_id": "restarted"}
    with run(**again, delivery=delivery):
        wait_until(lambda: audit(feed.broker, topics)["consumed"] == feed.sent, 90, "all is done")
    assert feed.verify()["duplicated"] == 0 or delivery == "at_least_once"


def test_a_broker_that_refuses_tokens_for_a_while_is_waited_for(
    run: Run,
    endpoint: Endpoint,
    feed: NumberedFeed,
    lines: list[EventDict],
) -> None:
    """As it does until it has heard of the issuer's new key."""
    told = "the broker refuses the token, trying again"
    with run(**endpoint.options) as worker:
        feed.send_until(worker, lambda: len(endpoint.asked) >= 2, "it works")
        endpoint.claims = {"aud": "other"}
        wait_until(lambda: not worker.progress.ready()[0], what="no connection is left")
        feed.send()
        assert worker.error is None
        endpoint.claims = {}
        wait_until(lambda: worker.published == feed.sent, what="it goes on")
    warning = next(line for line in lines if line["event"] == told)
    assert warning["answer"] == '{"status":"invalid_token"}'
    assert "iss 'issuer', aud 'other'" in warning["token"]
    assert feed.verify()["duplicated"] == 0


def test_a_token_that_the_broker_refuses_at_the_start_stops_the_worker(
    run: Run, endpoint: Endpoint
) -> None:
    endpoint.claims = {"aud": "other"}
    with run(**endpoint.options) as worker:
        worker.join(60)
    assert isinstance(worker.error, AccessDenied)
    expected = 'the broker refuses the token: {"status":"invalid_token"} (token: iss \'issuer\''
    assert expected in str(worker.error)
    assert len(endpoint.asked) == 1


# -- other commands ----------------------------------------------------------------------------


def test_every_command_signs_in(
    run: Run, guarded_door: Broker, topics: Topics, endpoint: Endpoint, feed: NumberedFeed
) -> None:
    with run(**endpoint.options) as worker:
        feed.send_until(worker, lambda: True, "it works")
    given = as_flags(endpoint.options)
    assert "answers" in check(guarded_door, topics, *given)
    assert audit(guarded_door, topics, *given)["consumed"] == feed.sent
    place = as_flags(flags(guarded_door, topics))
    done = subprocess.run(
        [sys.executable, "-m", "worker", "topics", "describe", *place, *given],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert topics.output in done.stdout
