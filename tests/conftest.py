"""Fixtures of every test: a broker, topics and a group; and checks for threads left behind.

The broker is the one at KAFKA_BOOTSTRAP_SERVERS, else Apache Kafka out of KAFKA_HOME, else the
embedded one; each test process has its own. The last lines of a run name the broker and the number
of tests that used it. The schema registry comes out of REGISTRY_HOME; without it, its tests are
skipped.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import threading
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import pytest
import structlog
from hypothesis import settings as hypothesis_settings

from tests.support import skips
from tests.support.apache import ApacheKafka
from tests.support.registry import ApicurioRegistry, own_registry
from worker.clock import SystemClock
from worker.demo.broker import EmbeddedBroker
from worker.settings import read_environment

# The client library reads its protocol's files in a way that Python 3.11 alone calls deprecated,
# and warnings are errors here.
_LIBRARY_WARNING = "(read|open)_text is deprecated"
with warnings.catch_warnings():
    warnings.filterwarnings("ignore", _LIBRARY_WARNING, DeprecationWarning)
    from kafka import KafkaAdminClient

# A time limit of each example would only measure how busy the machine is.
hypothesis_settings.register_profile("tests", deadline=None)
hypothesis_settings.load_profile("tests")

_THREADS_END_WITHIN_S = 5.0
# Library threads that live as long as the process.
_LASTING_THREADS = ("tqdm", "TMonitor", "AnyIO", "pytest")


@dataclass(frozen=True)
class Broker:
    """A running broker; `name` is for people."""

    bootstrap_servers: str
    kind: Literal["external", "apache", "embedded"]
    name: str


@dataclass(frozen=True)
class Topics:
    """Existing topics and a group without members, used by one test only."""

    input: str
    output: str
    dead: str
    group: str
    partitions: int


MakeTopics = Callable[..., Topics]


def new_topics(admin: KafkaAdminClient, partitions: int) -> Topics:
    """Create topics with names of their own."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    topics = Topics(f"{name}.in", f"{name}.out", f"{name}.dead", name, partitions)
    names = [topics.input, topics.output, topics.dead]
    admin.create_topics({one: {"num_partitions": partitions} for one in names})
    admin.wait_for_topics(names)
    return topics


# Broker name -> number of tests that used it.
_used_key = pytest.StashKey[Counter[str]]()
_name_key = pytest.StashKey[str]()


def pytest_addoption(parser: pytest.Parser) -> None:
    skips.pytest_addoption(parser)


def pytest_configure(config: pytest.Config) -> None:
    skips.pytest_configure(config)
    # `nohup` starts a program with SIGHUP ignored, and children inherit that; the test of a closing
    # terminal must not depend on how it was started.
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    config.stash[_used_key] = Counter()
    config.addinivalue_line("filterwarnings", f"ignore:{_LIBRARY_WARNING}:DeprecationWarning")
    for marker in (
        "allow_threads: the test may leave threads behind",
        "allow_errors: the test may log errors",
    ):
        config.addinivalue_line("markers", marker)


def pytest_runtest_setup() -> None:
    # A shell starts background jobs with SIGINT ignored, and a server that ran in an earlier test
    # may leave another handler; the tests of Ctrl-C must not depend on either.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    stash = item.config.stash
    if "broker" in getattr(item, "fixturenames", ()) and _name_key in stash:
        stash[_used_key][stash[_name_key]] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A test process reports its brokers to the first one."""
    if (told := getattr(session.config, "workeroutput", None)) is not None:
        told["used"] = dict(session.config.stash[_used_key])


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    node.config.stash[_used_key].update(getattr(node, "workeroutput", {}).get("used", {}))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for name, number in config.stash[_used_key].items():
        terminalreporter.write_line(f"broker: {number} integration tests ran on {name}")
    if not config.stash[_used_key]:
        terminalreporter.write_line("broker: no test needed one")


@pytest.fixture(scope="session")
def broker(pytestconfig: pytest.Config) -> Iterator[Broker]:
    """The broker shared by all integration tests of this process."""
    with contextlib.ExitStack() as stack:
        running = _some_broker(stack)
        pytestconfig.stash[_name_key] = running.name
        yield running


def _some_broker(stack: contextlib.ExitStack) -> Broker:
    if servers := read_environment("KAFKA_BOOTSTRAP_SERVERS"):
        return Broker(servers, "external", f"the broker at {servers} (KAFKA_BOOTSTRAP_SERVERS)")
    if home := read_environment("KAFKA_HOME"):
        kafka = stack.enter_context(ApacheKafka(Path(home)))
        name = f"Apache Kafka {kafka.version} (KAFKA_HOME)"
        return Broker(kafka.bootstrap_servers, "apache", name)
    embedded = stack.enter_context(EmbeddedBroker())
    name = f"the embedded broker (noida-db {version('noida-db')})"
    return Broker(embedded.bootstrap_servers, "embedded", name)


@pytest.fixture(scope="session")
def admin(broker: Broker) -> Iterator[KafkaAdminClient]:
    """An admin client for the test's own thread: it is not thread-safe."""
    client = KafkaAdminClient(bootstrap_servers=broker.bootstrap_servers.split(","))
    yield client
    client.close()


@pytest.fixture
def make_topics(admin: KafkaAdminClient) -> Iterator[MakeTopics]:
    """Return `make_topics(partitions=3)`; all topics are deleted after the test."""
    made: list[str] = []

    def make(partitions: int = 3) -> Topics:
        topics = new_topics(admin, partitions)
        made.extend([topics.input, topics.output, topics.dead])
        return topics

    yield make
    if made:
        admin.delete_topics(made, raise_errors=False)


@pytest.fixture
def topics(make_topics: MakeTopics, request: pytest.FixtureRequest) -> Topics:
    """Topics of three partitions; `parametrize("topics", [1], indirect=True)` changes that."""
    return make_topics(partitions=getattr(request, "param", 3))


@pytest.fixture(scope="session")
def registry() -> Iterator[ApicurioRegistry]:
    """The schema registry shared by the tests of this process; subjects are a test's own."""
    with own_registry() as running:
        yield running


@pytest.fixture
def breakable_registry(registry: ApicurioRegistry) -> Iterator[ApicurioRegistry]:
    """The same, for a test that kills or freezes it: it answers again after the test."""
    yield registry
    registry.thaw()
    registry.start()


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Restore the logging that a command sets up for its process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _nothing_left_behind(
    request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> Iterator[None]:
    """Fail a test that leaves a thread or logs an error."""
    before = set(threading.enumerate())
    yield
    faults = []
    if not request.node.get_closest_marker("allow_threads"):
        faults += [f"thread {thread.name!r} still runs" for thread in _leaked(before)]
    if not request.node.get_closest_marker("allow_errors"):
        faults += [f"logged: {record.getMessage()}" for record in _errors(caplog)]
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


def _leaked(before: set[threading.Thread]) -> list[threading.Thread]:
    """Return new threads that do not end within a bound."""
    clock = SystemClock()
    deadline = clock.monotonic() + _THREADS_END_WITHIN_S
    for thread in _new_threads(before):
        with contextlib.suppress(RuntimeError):  # it is just being started
            thread.join(max(0.0, deadline - clock.monotonic()))
    return _new_threads(before)


def _new_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and not thread.name.startswith(_LASTING_THREADS)
    ]


def _errors(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    """Return errors logged by the worker; the Kafka client may log lost connections."""
    said = [*caplog.get_records("setup"), *caplog.get_records("call")]
    return [
        record
        for record in said
        if record.levelno >= logging.ERROR and not record.name.startswith("kafka")
    ]
