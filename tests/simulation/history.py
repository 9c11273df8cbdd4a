"""One history: what its seed plans, what happens, and whether every promise held.

The audit's own ledger judges the outcomes, as a reader with `read_committed` sees them. Beside it
stands liveness: once the faults are over, all records get their outcomes, the group its offsets.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from random import Random
from typing import Final

from tests.simulation.broker import Broker, Entry, Offsets
from tests.simulation.group import Group
from tests.simulation.process import TOPICS, Process, Record, entered
from tests.simulation.world import World
from worker.core.audit_report import AuditReport
from worker.core.coordinates import SOURCE_HEADER, parse_source
from worker.core.ledger import Ledger
from worker.core.outcome_order import Outlet
from worker.core.records import Encoded, Partition
from worker.core.replay_outcomes import Kind, Source
from worker.core.scope import Scope
from worker.errors import StageCrashed
from worker.kafka_io.audit_outcomes import read_outcome
from worker.kafka_io.listener import StartFrom
from worker.kafka_io.reader import AuditRecord
from worker.settings import Settings, load

FAULTS: Final = (
    "lost",
    "refused",
    "away",
    "crash",
    "freeze",
    "forget",
    "leaderless",
    "retention",
    "silent",
)
_SESSION, _REBALANCE, _TRANSACTION = 6.0, 12.0, 4.0  # seconds
_START_MS: Final = 1_700_000_000_000  # timestamp of every record
_HELD: Final = 12  # most records that a worker may hold
_RECOVERY = 300.0  # seconds after the last fault in which all work must end
_ENDING = 60.0  # seconds in which a worker that is asked to must end


@dataclass(frozen=True)
class Plan:
    """The choices of a seed before anything happens.

    Attributes:
        faults: kinds that may happen; without any, nothing may be labelled twice.
        records: of each partition.
        routed: whether results go by routes: some to another topic, some copied, some dropped.
    """

    seed: int
    delivery: str
    start: StartFrom
    partitions: int
    workers: int
    records: int
    faults: frozenset[str]
    steps: int
    routed: bool

    @staticmethod
    def of(seed: int) -> Plan:
        """Return the plan of a seed."""
        r = Random(seed)
        kind = r.random()
        faults = frozenset(r.sample(FAULTS, r.randint(1, 3)))
        if kind < 0.25:
            faults = frozenset()
        elif kind < 0.4:  # a producer is replaced while the group is in doubt
            faults = frozenset(("forget", "silent"))
        return Plan(
            seed,
            r.choice(("at_least_once", "exactly_once")),
            r.choice(("earliest", "earliest", "latest")),
            partitions=r.randint(1, 3),
            workers=r.randint(1, 2),
            records=r.randint(2, 10),
            faults=faults,
            steps=r.randint(2, 6),
            routed=r.random() < 0.4,
        )


@dataclass
class Verdict:
    """How a history ended.

    Attributes:
        report: of the audit's ledger.
        problems: broken promises, in words; empty if all held.
        seconds: that passed in the world.
        happened: kinds of events, each as often as it happened.
    """

    plan: Plan
    report: AuditReport
    problems: list[str]
    seconds: float
    happened: list[str]
    trace: list[str]


def live(seed: int, *, trace: bool = False) -> Verdict:
    """Live through a history, and judge it."""
    history = History(Plan.of(seed), trace=trace)
    with entered(history.world, history.broker):
        return history.live()


class History:
    """The world, the topics and the workers of one seed."""

    def __init__(self, plan: Plan, *, trace: bool) -> None:
        self.plan = plan
        self.world = World(plan.seed, trace=[] if trace else None)
        random.seed(plan.seed)  # the pauses between tries (`faults.backoff`)
        self._random = self.world.random
        inputs = tuple(Partition("in", number) for number in range(plan.partitions))
        self._group = Group(inputs, _SESSION, _REBALANCE)
        self.broker = Broker(self._group, _TRANSACTION)
        self._inputs = inputs
        self._processes: list[Process] = []
        self._names = 0
        self._unexpected: list[str] = []
        self._happened: list[str] = []
        self.world.tick = self._tick
        self.broker.on_commit = self._check_transaction

    def _tick(self, now: float) -> None:
        """Let pass what time alone brings, a few times a second."""
        for process in self._processes:
            process.beat(now)
            if process.held > _HELD + 1 and not process.ended:
                self._unexpected.append(f"{process.name} holds {process.held} records")
        self._group.expire(now)
        self.broker.expire_transactions(now)

    def _check_transaction(self, outcomes: list[Encoded], after: Offsets, before: Offsets) -> None:
        """Check a transaction when it commits: readers see all of it from now on, or none.

        Its outcomes must be those of the records between the group's offset before and its own, no
        more and no less. So every prefix of the outputs has the outcomes below its offsets.
        """
        mains = [outcome for outcome in outcomes if not outcome.is_copy]
        found = sorted(_source(outcome) or ("", 0, 0) for outcome in mains)
        copies = len(outcomes) - len(mains)
        expected = []
        for partition, end in after.items():
            start = before.get(partition, end if self.plan.start == "latest" else 0)
            log = self.broker.logs.get(partition, [])[:end]
            expected += [
                (*partition, offset)
                for offset in range(max(start, self.broker.log_start.get(partition, 0)), len(log))
                if log[offset].payload is not None
            ]
        if copies != sum(outcome.copies for outcome in mains):
            self._unexpected.append(f"a transaction has {copies} copies, and announces others")
        if found != sorted(expected):
            self._unexpected.append(
                f"a transaction has {found}, and its offsets {sorted(expected)}"
            )

    def live(self) -> Verdict:
        for _ in range(self.plan.workers):
            self._start_worker()
        self._produce(self.plan.records)
        for _ in range(self.plan.steps):
            self.world.run(
                self.world.now + self._random.random() * self._random.choice((0.1, 1, 8))
            )
            self._something_happens()
        self._heal()
        problems = [] if self._all_ends() else ["work never ended"]
        problems += self._end()
        return self._judge(problems)

    # -- what happens ------------------------------------------------------------------------------

    def _something_happens(self) -> None:
        events = ["produce", "join", "stop", *sorted(self.plan.faults)]
        event = self._random.choice(events)
        self.world.tell(event)
        self._happened.append(event)
        process = self._a_process()
        if event == "produce":
            self._produce(self._random.randint(1, self.plan.records))
        elif event == "join" or process is None:
            self._start_worker()
        else:
            self._happens_to(process, event)

    def _happens_to(self, process: Process, event: str) -> None:
        network, now, r = process.network, self.world.now, self._random
        share = r.choice((0.02, 0.2, 0.5))
        events: dict[str, Callable[[], None]] = {
            "stop": process.stop,
            "lost": lambda: setattr(network, "lost", share),
            "refused": lambda: setattr(network, "refused", share),
            "away": lambda: setattr(network, "away_until", now + 10 * r.random()),
            "silent": lambda: setattr(network, "silent_until", now + _SESSION * (1 + r.random())),
            "crash": process.crash,
            "freeze": lambda: process.freeze(frozen=not process.frozen),
            "forget": process.forget,
            "leaderless": self._toggle_leader,
            "retention": self._delete_oldest,
        }
        events[event]()

    def _toggle_leader(self) -> None:
        topic, number = self._random.choice(("out", "dead")), self._random.randrange(3)
        self.broker.leaderless ^= {Partition(topic, number)}

    def _a_process(self) -> Process | None:
        alive = [one for one in self._processes if not one.ended]
        return self._random.choice(alive) if alive else None

    def _start_worker(self) -> None:
        if sum(not one.ended for one in self._processes) >= 3:
            return
        self._names += 1
        name = f"w{self._names}"
        self.world.tell(f"{name} starts")
        self._processes.append(
            Process(
                name,
                self.world,
                self.broker,
                _settings(self.plan.delivery, self.plan.start, routed=self.plan.routed),
                self.plan.start,
                self.plan.partitions,
            )
        )

    def _produce(self, number: int) -> None:
        for partition in self._inputs:
            for _ in range(number):
                self.broker.append(partition, self._record())
            if self._random.random() < 0.2:
                self.broker.logs[partition].append(Entry(None))  # as a transaction leaves

    def _record(self) -> Record:
        kind = self._random.random()
        if kind < 0.05:
            return Record(None)
        if kind < 0.1:
            return Record("poison")
        key = b"refuse" if kind < 0.15 else b"key"
        return Record("some words"[: self._random.randint(1, 10)], key)

    def _delete_oldest(self) -> None:
        """Delete a prefix that the group has passed: retention that is slower than the workers."""
        for partition in self._inputs:
            passed = self._group.offsets.get(partition, 0)
            first = self.broker.log_start.get(partition, 0)
            self.broker.log_start[partition] = max(first, passed)

    # -- the end -----------------------------------------------------------------------------------

    def _heal(self) -> None:
        self.world.tell("the faults are over")
        self.broker.leaderless = set()
        for process in self._processes:
            process.heal()
        self._keep_one_alive()

    def _keep_one_alive(self) -> None:
        """Start a worker if there is none, as an orchestrator does."""
        if not any(not one.ended and not one.stopping for one in self._processes):
            self._start_worker()

    def _all_ends(self) -> bool:
        until = self.world.now + _RECOVERY
        while self.world.now < until:
            if self.world.run(min(until, self.world.now + 5.0), self._is_done):
                return True
            self._keep_one_alive()
        return False

    def _is_done(self) -> bool:
        group = self._group
        return not group.pending and all(
            group.offsets.get(partition, 0) >= self.broker.end(partition)
            for partition in self._inputs
        )

    def _end(self) -> list[str]:
        for process in self._processes:
            process.stop()
        alive = [one for one in self._processes if not one.ended]
        self.world.run(self.world.now + _ENDING, lambda: all(one.ended for one in alive))
        problems = [f"{one.name} did not end" for one in alive if not one.ended]
        problems += [
            f"{one.name} failed: {one.fault}"
            for one in self._processes
            if isinstance(one.fault, StageCrashed) or (one.fault and not self.plan.faults)
        ]
        self.world.close()
        return problems

    def _judge(self, problems: list[str]) -> Verdict:
        # A late request of a producer that is gone may have begun a transaction. Readers wait until
        # the broker aborts it.
        self.broker.expire_transactions(math.inf)
        ends = {partition: self.broker.end(partition) for partition in self._inputs}
        firsts = dict.fromkeys(ends, 0)
        if self.plan.start == "latest":  # nobody began to read a partition that stayed empty
            firsts = self._group.offsets | self._group.firsts
        scopes = {p: Scope(end, end, firsts.get(p, 0)) for p, end in ends.items()}
        ledger = Ledger(scopes)
        for partition in self._inputs:
            for offset, _ in self.broker.committed(partition):
                ledger.record(partition, offset, _START_MS)
        ledger.set_starts(dict.fromkeys(ends, 0))
        for topic in TOPICS:
            self._add_outcomes(ledger, topic)
        report = ledger.report()
        problems += self._unexpected[:1]
        strict = self.plan.delivery == "exactly_once" or not self.plan.faults
        broken = report.breaches(0 if strict else None)
        if broken and not problems:
            problems = [f"{name}: {report.examples.get(name, [])[:3]}" for name in broken]
        elif broken:
            problems += broken
        return Verdict(
            self.plan, report, problems, self.world.now, self._happened, self.world.trace or []
        )

    def _add_outcomes(self, ledger: Ledger, topic: str) -> None:
        outlet = Outlet(_KINDS.get(topic, "result"), topic)
        for number in range(self.plan.partitions):
            for offset, sent in self.broker.committed(Partition(topic, number)):
                read = AuditRecord(
                    number, offset, sent.headers, _START_MS, sent.value or b"", sent.key
                )
                found = read_outcome(outlet.kind, read)
                if found and found.source:
                    self._check_kind(outlet.kind, found.source)
                if found is None:
                    ledger.outcome(outlet, number, offset, None)
                elif found.copy_route is not None:
                    ledger.copy(
                        outlet, number, offset, found.source, _START_MS, route=found.copy_route
                    )
                else:
                    ledger.outcome(
                        outlet, number, offset, found.source, _START_MS, copies=found.copies
                    )

    def _check_kind(self, kind: Kind, source: Source) -> None:
        """Check that a record became a dead letter only if it can't be labelled, or is refused."""
        record = self.broker.logs[Partition(*source[:2])][source[2]].payload
        if kind == "dead_letter" and record.labelled and record.key != b"refuse":
            self._unexpected.append(f"{source} is a dead letter, and could be labelled")
        elif kind != "dead_letter" and not record.labelled:
            self._unexpected.append(f"{source} has a {kind}, and can't be labelled")


_KINDS: Final[dict[str, Kind]] = {"dead": "dead_letter", "notes": "filtered"}
_ROUTED: Final = {
    "output.filtered_topic": "notes",
    "routes": [
        {"name": "copied", "label": "POSITIVE", "topic": "copies", "also": True},
        {"name": "unsure", "max_score": 0.6, "drop": True},
        {"name": "negative", "label": "NEGATIVE", "topic": "other"},
    ],
}


def _source(outcome: Encoded) -> tuple[str, int, int] | None:
    value = dict(outcome.headers).get(SOURCE_HEADER)
    return parse_source(value) if value else None


@cache
def _settings(delivery: str, start: str, *, routed: bool) -> Settings:
    return load(
        {
            **(_ROUTED if routed else {}),
            "input.topic": "in",
            "input.format": "text",
            "input.start": start,
            "output.topic": "out",
            "output.dead_letter_topic": "dead",
            "delivery": delivery,
            "batch.max_records": 4,
            "max_inflight_records": _HELD,
            "max_consecutive_dead_letters": 1_000,
            "max_dead_letter_ratio": 1,
            "max_unreadable_ratio": 1,
            "cache.max_bytes": 0,
            "drift.reference_records": 0,
            "transaction_timeout": _TRANSACTION,
            "rebalance_drain_timeout": 8,
            "shutdown_timeout": 15,
        },
        environ={},
    ).settings
