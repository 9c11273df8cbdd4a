"""Stands under each proof: topics of its own, records, `streamlabel` processes and the audit.

The harness's thread owns a `Ground`; the producer of its arena has a thread. Leaving the context
ends every process that it started, and removes the topics.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import random
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.chaos.arena import Arena
from tests.chaos.cluster import Cluster
from tests.chaos.conduct import audited
from tests.chaos.decisions import Routed, text_of
from tests.chaos.names import RunNames
from tests.chaos.plan import BrokerKind
from tests.conftest import Broker, Topics
from tests.kube.verdicts import Delivery, Failed
from tests.support.changing import Changing
from tests.support.models import make_checkpoint
from tests.support.workers import WorkerProcess, flags
from worker.cli.flags import options_of
from worker.clock import SystemClock
from worker.demo.fallback_posts import fallback_posts
from worker.kafka_io.admin import Admin
from worker.processes import finish, last_lines, spawn, stop
from worker.settings import KafkaSettings, child_environment

PARTITIONS = 4
_STALL_S = 120.0  # seconds without progress until a wait gives up
_STEP_S = 0.05
_STOP_S = 60.0
_SESSION_S = 10
_COMMAND_S = 3600.0
_UNLIMITED = 1e9  # records a second


@dataclass(frozen=True)
class Order:
    """Orders of the command line for every proof.

    Attributes:
        records: size of the proof.
        seed: of all that is drawn.
        model: name or folder; `tiny` for a checkpoint of random weights.
    """

    records: int
    seed: int
    delivery: Delivery
    model: str = "bundled"


class Command:
    """A `streamlabel` process; standard output and the log are files.

    Args:
        arguments: those of `streamlabel`.
        place: path of both files, without their suffix.
    """

    def __init__(self, arguments: tuple[str, ...], place: Path) -> None:
        self.output, self.log = place.with_suffix(".out"), place.with_suffix(".log")
        self.name = " ".join(arguments[:2])
        with self.output.open("wb") as output, self.log.open("wb") as log:
            self.process = spawn(
                [sys.executable, "-P", "-m", "worker", *arguments],
                output,
                child_environment(),
                log,
            )

    @property
    def ended(self) -> bool:
        """True once the process has ended."""
        return self.process.poll() is not None

    @property
    def text(self) -> str:
        """Its standard output so far."""
        return self.output.read_text(encoding="utf-8")

    @property
    def document(self) -> Any:
        """The JSON of its last line."""
        lines = self.text.splitlines()
        return json.loads(lines[-1]) if lines else None

    def kill(self) -> None:
        """Send SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """Send SIGTERM; return the exit code."""
        return stop(self.process, _STOP_S)

    def wait(self, expected: int | None = 0) -> int:
        """Wait for the end; return the exit code. Raises Failed if it is not the expected one."""
        code = self.process.wait(_COMMAND_S)
        if expected not in (None, code):
            raise Failed(
                f"`streamlabel {self.name}` ended with {code} instead of {expected}:\n"
                f"{last_lines(self.log)}\n{last_lines(self.output)}"
            )
        return code


class Ground:
    """Topics with a producer, and all that a proof starts.

    Args:
        broker: a running broker.
        order: what the command line asks.
        folder: takes the logs, and a model.

    Attributes:
        topics: input, output, dead letters and group, as `tests.support.workers` takes them.
        model: name or folder.
    """

    def __init__(self, broker: Broker, order: Order, folder: Path) -> None:
        self.broker, self.order, self.folder = broker, order, folder
        servers = broker.bootstrap_servers
        kind: BrokerKind = "embedded" if broker.kind == "embedded" else "apache"
        self.cluster = Cluster(kind, servers, [servers])
        self.names = RunNames(f"{folder.name}-{uuid.uuid4().hex[:6]}")
        self.topics = Topics(
            self.names.input, self.names.output, self.names.dead, self.names.group, PARTITIONS
        )
        self.model = order.model
        if order.model == "tiny":
            self.model = str(make_checkpoint(folder / "tiny"))
        self._stack = contextlib.ExitStack()
        self._clock = SystemClock()
        self._processes = 0
        self._admin: Admin

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            self._admin = stack.enter_context(
                Admin(KafkaSettings(bootstrap_servers=self.broker.bootstrap_servers))
            )
            for name in (self.topics.input, self.topics.output, self.topics.dead):
                self._admin.create(name, PARTITIONS)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # -- records -------------------------------------------------------------------------------

    def feed(
        self,
        records: int | None = None,
        rate: float = _UNLIMITED,
        poison: float = 0.0,
        routed: Routed | None = None,
    ) -> Arena:
        """Start a producer of distinct posts; once a proof.

        Args:
            records: their number [default: the order's].
            rate: records a second.
            poison: share of them that can't be read; `bad` of the arena counts them.
            routed: topics of routes; the records are then those of `tests.chaos.decisions`.
        """
        chance, posts = random.Random(self.order.seed), fallback_posts()

        def post(number: int) -> str:
            return f"{chance.choice(posts).text} ({number})"

        arena = Arena(
            self.cluster,
            PARTITIONS,
            rate,
            self.order.records if records is None else records,
            names=self.names,
            text=text_of if routed else post,
            unreadable=poison,
            seed=self.order.seed,
            routed=routed,
        )
        self._stack.enter_context(arena)
        arena.start()
        return arena

    def produced(
        self, records: int | None = None, poison: float = 0.0, routed: Routed | None = None
    ) -> Arena:
        """Do the same as `feed`, and return when every record is acknowledged."""
        arena = self.feed(records, poison=poison, routed=routed)
        self.until(lambda: arena.complete, "every record is produced", lambda: arena.produced)
        return arena

    def size(self, topic: str) -> int:
        """Return how many offsets of a topic a reader of committed records can see."""
        return sum(self._admin.end_offsets(topic, "read_committed").values())

    @property
    def outcomes(self) -> int:
        """The acknowledged outcomes, with the transactions' markers."""
        return self.size(self.topics.output) + self.size(self.topics.dead)

    @property
    def lag(self) -> int:
        """The input records that the group has not committed."""
        done = self._admin.committed(self.topics.group, self.topics.input)
        ends = self._admin.end_offsets(self.topics.input)
        return sum(end - done.get(partition, 0) for partition, end in ends.items())

    # -- processes -----------------------------------------------------------------------------

    def flags(self, command: str, group: str | None = None) -> tuple[str, ...]:
        """Return the flags that point a command at broker, group and topics, if it takes them.

        Args:
            command: its name.
            group: instead of the worker's.
        """
        module = importlib.import_module(f"worker.cli.{command.replace('-', '_')}")
        given = flags(self.broker, self.topics)
        given |= {"kafka.group_id": group} if group else {}
        taken = (one for one in options_of(module.OPTIONS) if one.path in given)
        return tuple(f"{one.flag}={given[one.path]}" for one in taken)

    def start(self, *arguments: str, group: str | None = None) -> Command:
        """Start a `streamlabel` command; the flags of broker, group and topics are added."""
        command = Command((*arguments, *self.flags(arguments[0], group)), self._place(arguments[0]))
        self._stack.callback(lambda: finish(command.process, 0.0))
        return command

    def run(self, *arguments: str, expected: int | None = 0) -> Command:
        """Start a command and wait for its end. Raises Failed if its exit code is another."""
        command = self.start(*arguments)
        command.wait(expected)
        return command

    def worker(self, *more: str, model: str | None = None) -> WorkerProcess:
        """Start `streamlabel run`, and return when it is ready."""
        log = self._place("run").with_suffix(".log")
        chosen = model or self.model
        worker = WorkerProcess(self.broker, self.topics, chosen, log, *self._common(), *more)
        self._stack.callback(worker.kill)
        worker.wait_ready()
        return worker

    def changing(self, model: Path, *more: str) -> Changing:
        """Start a worker whose model a settings file names, and return when it is ready."""
        worker = Changing(self.broker, self.topics, self.folder, model, *self._common(), *more)
        self._stack.callback(worker.kill)
        worker.wait_ready()
        return worker

    def _common(self) -> tuple[str, ...]:
        # A killed member keeps its partitions for the length of a session.
        session = ("--kafka-session-timeout", f"{_SESSION_S}")
        return ("--delivery", self.order.delivery, *session)

    def kill_when(
        self, process: Command | WorkerProcess, condition: Callable[[], bool], what: str
    ) -> None:
        """Send SIGKILL when a state is reached. Raises Failed if the process ended before."""

        def reached() -> bool:
            if process.process.poll() is not None:
                raise Failed(f"it ended before {what}:\n{last_lines(process.log)}")
            return condition()

        self.until(reached, what, lambda: self.outcomes)
        process.kill()

    def labelled(self, arena: Arena) -> None:
        """Wait until every record is produced and the group has committed everything."""
        self.until(
            lambda: arena.complete and self.lag == 0,
            "every record is labelled and committed",
            lambda: (arena.produced, self.lag, self.outcomes),
        )

    def until(
        self, condition: Callable[[], bool], what: str, progress: Callable[[], object]
    ) -> None:
        """Wait for a condition. Raises Failed if `progress` stays the same for two minutes."""
        seen, moved_at = progress(), self._clock.monotonic()
        while not condition():
            self._clock.sleep(_STEP_S)
            now, at = progress(), self._clock.monotonic()
            if now != seen:
                seen, moved_at = now, at
            elif at - moved_at > _STALL_S:
                raise Failed(f"waited in vain until {what}: no progress for {_STALL_S:.0f} s")

    def _place(self, name: str) -> Path:
        self._processes += 1
        return self.folder / f"{self._processes:02}-{name}"

    # -- the audit -----------------------------------------------------------------------------

    def audit(self, routes: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        """Return the report of `streamlabel audit --json --to-end`; of settings with `routes`."""
        report = audited(self.cluster, self.names, self.order.delivery, routes)
        (self.folder / "audit.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
        return report


@contextlib.contextmanager
def folders(keep: Path | None) -> Iterator[Path]:
    """Give a folder for logs: a temporary one, or the one to keep."""
    if keep:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="streamlabel-proofs-") as name:
        yield Path(name)
