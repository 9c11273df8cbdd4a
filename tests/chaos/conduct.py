"""Conducts one run: breaks the workers by plan, lets them drain, and judges by the audit.

Runs on the harness's thread, which starts every fault and heals it some seconds later.
"""

from __future__ import annotations

import functools
import heapq
import itertools
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.arena import Arena, Cluster, RunNames
from tests.chaos.fleet import Fleet, WorkerSlot
from tests.chaos.plan import SLOTS, Delivery, Fault, Plan
from worker.clock import SystemClock
from worker.demo.broker import NEEDS
from worker.settings import child_environment

_READY_S = 90.0
_PATIENCE_S = 45.0  # seconds without a commit, while records wait, until a run counts as stuck
_STOP_S = 45.0
_STEP_S = 0.05
_COUNTS = ("consumed", "published", "dead_lettered")
_OFFENCES = ("missing", "duplicated", "reordered", "orphans")
_RETRY_S = 1.0  # until a fault without a target, or a broker that is not back, is tried again

SETTINGS: dict[str, Any] = {
    "kafka.session_timeout": 6,
    "kafka.request_timeout": 10,
    "model.threads": 1,
    "batch.max_records": 16,
    "max_inflight_records": 256,
    "shutdown_timeout": 20,
    "rebalance_drain_timeout": 10,
    "transaction_timeout": 6,
    "http.enabled": False,
    "log.format": "json",
}


class AuditFailed(Exception):
    """The audit failed; the message is its output."""


@dataclass
class RunVerdict:
    """The result of a run, printed as one JSON object."""

    seed: int
    faults: dict[str, int]
    consumed: int = 0
    published: int = 0
    dead_lettered: int = 0
    missing: int = 0
    duplicated: int = 0
    duplicates_allowed: int = 0
    reordered: int = 0
    orphans: int = 0
    longest_stall_s: float = 0.0
    producers_replaced: int = 0
    exit_codes: dict[str, int] = field(default_factory=dict)
    delivery: str = ""
    drained: bool = False
    seconds: float = 0.0
    logs: str = ""

    @property
    def holds(self) -> bool:
        """True if the promise of this delivery mode was kept."""
        offences = self.missing + self.reordered + self.orphans
        excess = max(0, self.duplicated - self.duplicates_allowed)
        return self.drained and self.consumed > 0 and not offences and not excess

    def as_json(self) -> str:
        """Return the verdict as JSON; the folder of the logs only if a promise was broken."""
        facts = {"holds": self.holds} | asdict(self)
        if self.holds:
            del facts["logs"]
        return json.dumps(facts)


@dataclass(frozen=True)
class Subject:
    """The workers under test: the name or folder of their model, and a planted bug."""

    model: str
    delivery: Delivery
    bug: str | None = None


def conduct(
    plan: Plan, cluster: Cluster, subject: Subject, log: Callable[[str], None] = lambda _: None
) -> RunVerdict:
    """Run a plan and return the verdict."""
    folder = Path(tempfile.mkdtemp(prefix=f"streamlabel-chaos-{plan.seed}-"))
    with Arena(cluster, plan.partitions, plan.rate) as arena:
        verdict = _Run(plan, cluster, arena, subject, folder, log).go()
    if verdict.holds:
        shutil.rmtree(folder)
    return verdict


def flags_of(cluster: Cluster, names: RunNames, subject: Subject, slot: int) -> dict[str, Any]:
    """Return the settings of the worker in a slot, by path."""
    return SETTINGS | {
        "kafka.bootstrap_servers": cluster.by_slot[slot],
        "kafka.group_id": names.group,
        "input.topic": names.input,
        "output.topic": names.output,
        "output.dead_letter_topic": names.dead,
        "model.name": subject.model,
        "delivery": subject.delivery,
        **(NEEDS if cluster.kind == "embedded" else {}),
    }


def audited(cluster: Cluster, names: RunNames, delivery: Delivery) -> dict[str, Any]:
    """Return the report of `streamlabel audit` on all records produced."""
    command = [
        *(sys.executable, "-P", "-m", "worker", "audit", "--json", "--to-end"),
        *("--bootstrap-servers", cluster.bootstrap_servers),
        *("--group-id", names.group, "--delivery", delivery),
        *("--input-topic", names.input, "--output-topic", names.output),
        *("--output-dead-letter-topic", names.dead),
    ]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=child_environment()
    )
    if not done.stdout:
        raise AuditFailed(done.stderr)
    verdict: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return verdict


class _Run:
    def __init__(
        self,
        plan: Plan,
        cluster: Cluster,
        arena: Arena,
        subject: Subject,
        folder: Path,
        log: Callable[[str], None],
    ) -> None:
        self._plan, self._cluster, self._arena = plan, cluster, arena
        self._subject, self._folder, self._log = subject, folder, log
        self._clock = SystemClock()
        self._fleet = Fleet(SLOTS[cluster.kind], self._flags, folder, subject.bug)
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._down: Any = None  # the broker with a fault; one at a time
        self._done: Counter[str] = Counter()
        self._cut: set[int] = set()

    def _flags(self, slot: int) -> dict[str, Any]:
        flags = flags_of(self._cluster, self._arena.names, self._subject, slot)
        if self._plan.static:
            flags["kafka.group_instance_id"] = f"slot-{slot}"
        return flags

    def go(self) -> RunVerdict:
        started = self._clock.monotonic()
        for slot in self._fleet.slots[: self._plan.workers]:
            self._fleet.start(slot)
        self._arena.start()
        self._until(lambda: self._arena.outcomes > 0, _READY_S)
        began = self._clock.monotonic()
        for fault in self._plan.faults:
            self._at(began + fault.at, functools.partial(self._begin, fault))
        self._until(lambda: not self._agenda, float("inf"))
        drained = self._arena.drain(self._step, _PATIENCE_S)
        stopped = self._fleet.stop_all(_STOP_S)
        self._log("judging")
        return self._judge(drained=drained and stopped, started=started)

    def _judge(self, *, drained: bool, started: float) -> RunVerdict:
        verdict = RunVerdict(self._plan.seed, dict(sorted(self._done.items())), drained=drained)
        try:
            audit = audited(self._cluster, self._arena.names, self._subject.delivery)
        except (
            AuditFailed
        ) as error:  # nothing counts as consumed then, so the promise does not hold
            audit = {"failed": str(error)}
        for name in (*_COUNTS, *_OFFENCES):
            setattr(verdict, name, audit.get(name, 0))
        verdict.delivery = delivery = self._subject.delivery
        allowed = self._fleet.repeatable if delivery == "at_least_once" else 0
        verdict.duplicates_allowed = allowed
        verdict.longest_stall_s = round(self._arena.longest_stall, 1)
        verdict.producers_replaced = self._fleet.replaced
        verdict.exit_codes = dict(sorted(self._fleet.exits.items()))
        verdict.seconds = round(self._clock.monotonic() - started, 1)
        verdict.logs = str(self._folder)
        if not verdict.holds:
            (self._folder / "audit.json").write_text(json.dumps(audit, indent=1))
            for node in self._cluster.kafka.nodes if self._cluster.kafka else ():
                shutil.copy(node.log, self._folder / f"broker-{node.port}.log")
        return verdict

    # -- time ----------------------------------------------------------------------------------

    def _at(self, when: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._agenda, (when, next(self._order), action))

    def _in(self, seconds: float, action: Callable[[], None]) -> None:
        self._at(self._clock.monotonic() + seconds, action)

    def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        deadline = self._clock.monotonic() + timeout
        while not condition() and self._clock.monotonic() < deadline:
            self._step()
            self._clock.sleep(_STEP_S)

    def _step(self) -> None:
        while self._agenda and self._agenda[0][0] <= self._clock.monotonic():
            heapq.heappop(self._agenda)[2]()
        self._fleet.supervise()

    # -- faults --------------------------------------------------------------------------------

    def _begin(self, fault: Fault) -> None:
        if not getattr(self, f"_{fault.kind}")(fault):
            self._in(_RETRY_S, lambda: self._begin(fault))
            return
        self._done[fault.kind] += 1
        self._log(f"{sum(self._done.values())}/{len(self._plan.faults)} {fault.kind}")

    def _target(self, fault: Fault) -> WorkerSlot | None:
        """Return a worker that is neither frozen nor stopping."""
        targets = [slot for slot in self._fleet.running if not slot.frozen and not slot.stopping]
        return targets[fault.target % len(targets)] if targets else None

    def _sigterm(self, fault: Fault) -> bool:
        if (slot := self._target(fault)) is None:
            return False
        self._fleet.terminate(slot, fault.duration)
        return True

    def _sigkill(self, fault: Fault) -> bool:
        if (slot := self._target(fault)) is None:
            return False
        self._fleet.kill(slot, fault.duration)
        if self._cluster.kind == "embedded":
            self._in(0.2, self._arena.forget_killed)
        return True

    def _sigstop(self, fault: Fault) -> bool:
        if (slot := self._target(fault)) is None:
            return False
        self._fleet.freeze(slot)
        self._in(fault.duration, lambda: self._fleet.thaw(slot))
        return True

    def _join(self, fault: Fault) -> bool:
        empty = [slot for slot in self._fleet.slots if not slot.running and slot.due is None]
        if empty:
            self._fleet.start(empty[0])
        elif slot := self._target(fault):
            self._fleet.terminate(slot, None)
        else:
            return False
        return True

    def _stage_crash(self, fault: Fault) -> bool:
        if (slot := self._target(fault)) is None:
            return False
        slot.orders.crash = 1
        return True

    def _broker(
        self, fault: Fault, hurt: Callable[[Any], None], heal: Callable[[Any], None]
    ) -> bool:
        if self._down is not None or self._cluster.kafka is None:
            return False
        nodes = self._cluster.kafka.nodes
        node = self._down = nodes[fault.target % len(nodes)]
        hurt(node)
        self._in(fault.duration, lambda: self._heal_broker(node, heal))
        return True

    def _heal_broker(self, node: Any, heal: Callable[[Any], None]) -> None:
        heal(node)
        if node.up and not node.stopping and node.answers():
            self._down = None
        else:
            self._in(_RETRY_S, lambda: self._heal_broker(node, heal))

    def _broker_restart(self, fault: Fault) -> bool:
        return self._broker(fault, lambda node: node.terminate(), lambda node: node.start())

    def _broker_kill(self, fault: Fault) -> bool:
        return self._broker(fault, lambda node: node.kill(), lambda node: node.start())

    _broker_loss = _broker_kill  # with a longer duration

    def _broker_freeze(self, fault: Fault) -> bool:
        return self._broker(fault, lambda node: node.freeze(), lambda node: node.thaw())

    def _network_cut(self, fault: Fault) -> bool:
        return self._wire(fault, lambda wires, slot: wires.cut(slot))

    def _network_delay(self, fault: Fault) -> bool:
        return self._wire(fault, lambda wires, slot: wires.slow_down(slot, fault.size))

    def _wire(self, fault: Fault, hurt: Callable[[Any, int], None]) -> bool:
        slot, wires = self._target(fault), self._cluster.wires
        if slot is None or wires is None or slot.number in self._cut:
            return False
        self._cut.add(slot.number)
        hurt(wires, slot.number)
        self._in(fault.duration, lambda: self._heal_wire(wires, slot.number))
        return True

    def _heal_wire(self, wires: Any, number: int) -> None:
        self._cut.discard(number)
        wires.heal(number)

    def _poison(self, fault: Fault) -> bool:
        self._arena.inject(fault.kind, int(fault.size))
        return True

    _unreadable = _poison

    def _slow_model(self, fault: Fault) -> bool:
        return self._order_until(fault, "slow_until")

    def _out_of_memory(self, fault: Fault) -> bool:
        return self._order_until(fault, "short_of_memory_until")

    def _clock_jump(self, fault: Fault) -> bool:
        slot = self._target(fault)
        if slot is not None:
            slot.orders.clock_jump = fault.size
        return self._order_until(fault, "clock_jump_until")

    def _order_until(self, fault: Fault, order: str) -> bool:
        if (slot := self._target(fault)) is None:
            return False
        setattr(slot.orders, order, self._clock.monotonic() + fault.duration)
        return True
