"""Conducts one run: breaks the workers by plan, lets them drain, and judges by the audit.

Runs on the harness's thread.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.agenda import Agenda, EndFailed
from tests.chaos.arena import Arena
from tests.chaos.beginnings import Beginnings
from tests.chaos.cluster import Cluster
from tests.chaos.decisions import Routed, flags_for, text_of
from tests.chaos.faults import Faults
from tests.chaos.fleet import Fleet
from tests.chaos.lives import Lives
from tests.chaos.names import RunNames
from tests.chaos.numbered_ledger import judged
from tests.chaos.plan import SLOTS, Delivery, Plan
from tests.chaos.prefix_watch import PrefixWatch
from tests.chaos.slot_models import SlotModels
from tests.chaos.verdict import RunVerdict
from worker.clock import SystemClock
from worker.core.replay_outcomes import Kind
from worker.demo.broker import NEEDS
from worker.errors import StreamlabelError
from worker.settings import child_environment

_READY_S = 90.0
_PATIENCE_S = 45.0  # seconds without a commit, while records wait, until a run counts as stuck
_STOP_S = 45.0
_STEP_S = 0.05
_METADATA_S = 3  # until added partitions are noticed
_REGISTRY_S = 2.0  # less than most of the registry's faults
_COUNTS = ("consumed", "published", "dead_lettered", "filtered")
_OFFENCES = ("missing", "duplicated", "reordered", "orphans", "uncopied")

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


@dataclass(frozen=True)
class Subject:
    """The workers under test.

    Attributes:
        model: name or folder.
        bug: planted into each worker.
        settings: further settings by path; they replace those of the run.
        decides: whether the records are routed, as `tests.chaos.decisions` says.
    """

    model: str
    delivery: Delivery
    bug: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    decides: bool = False


def conduct(
    plan: Plan, cluster: Cluster, subject: Subject, log: Callable[[str], None] = lambda _: None
) -> RunVerdict:
    """Run a plan and return the verdict."""
    folder = Path(tempfile.mkdtemp(prefix=f"streamlabel-chaos-{plan.seed}-"))
    names = RunNames()
    more = {"routed": Routed.of(names.group), "text": text_of} if subject.decides else {}
    with Arena(
        cluster, plan.partitions, plan.rate, format_=plan.format, names=names, **more
    ) as arena:
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
        "delivery": subject.delivery,
        **(cluster.security.flags if cluster.security else {}),
        **(NEEDS if cluster.kind == "embedded" else {}),
        **(Routed.of(names.group).routes if subject.decides else {"model.name": subject.model}),
    }


def outcomes_of(names: RunNames, *, decides: bool) -> dict[str, Kind]:
    """Return the topics of a run's outcomes, each with their kind."""
    topics: dict[str, Kind] = {names.output: "result", names.dead: "dead_letter"}
    if decides:
        routed = Routed.of(names.group)
        topics |= {routed.news: "result", routed.copies: "copy", routed.notes: "filtered"}
    return topics


def audited(
    cluster: Cluster, names: RunNames, delivery: Delivery, routes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return the report of `streamlabel audit` on all records produced.

    Args:
        cluster: with the topics.
        names: of topics and group.
        delivery: of the workers.
        routes: the workers' settings of routes, by path.
    """
    command = [
        *(sys.executable, "-P", "-m", "worker", "audit", "--json", "--to-end"),
        *("--bootstrap-servers", cluster.bootstrap_servers),
        *("--group-id", names.group, "--delivery", delivery),
        *("--input-topic", names.input, "--output-topic", names.output),
        *("--output-dead-letter-topic", names.dead),
        *flags_for(routes or {}),
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
        self._agenda = Agenda(self._clock)
        self._models = SlotModels(folder, len(self._fleet.slots), self._named())
        for slot in self._fleet.slots:
            slot.config = self._models.file(slot.number)
        where = (cluster.bootstrap_servers, arena.names.input)
        self._lives = Lives(*where, arena.committed, arena.sent) if plan.renews else None
        self._faults = Faults(
            cluster,
            arena,
            self._fleet,
            self._agenda,
            self._clock,
            self._models.change,
            lives=self._lives,
        )
        self._begun = Beginnings(
            self._faults.begin, lambda: self._faults.refusal, self._agenda, self._clock, log
        )

    def _flags(self, slot: int) -> dict[str, Any]:
        flags = flags_of(self._cluster, self._arena.names, self._subject, slot)
        if self._plan.static:
            flags["kafka.group_instance_id"] = f"slot-{slot}"
        if self._plan.format != "json" and (registry := self._cluster.registry):
            formats = {"input.format": self._plan.format, "output.format": self._plan.format}
            flags |= formats | {"registry.url": registry.url, "registry.timeout": _REGISTRY_S}
        flags |= {"kafka.metadata_max_age": _METADATA_S, "model.reload_on_change": True}
        flags |= self._subject.settings
        return {path: value for path, value in flags.items() if path not in self._named()}

    def _named(self) -> Mapping[str, Any]:
        """Return the settings that name a model, which are in the slot's file."""
        if self._subject.decides:
            return {"models": self._subject.settings["models"]}
        return {"model.name": self._subject.model}

    def _routes(self) -> Mapping[str, Any]:
        """Return the settings that the audit needs beside the names of topics, by path."""
        if not self._subject.decides:
            return {}
        return {**Routed.of(self._arena.names.group).routes, **self._named()}

    def go(self) -> RunVerdict:
        """Run it, with a watch in exactly-once delivery."""
        with self._lives or contextlib.nullcontext():
            return self._go_watched()

    def _go_watched(self) -> RunVerdict:
        if self._subject.delivery != "exactly_once" or self._cluster.kind != "apache":
            return self._go()
        names = self._arena.names
        watch = PrefixWatch(
            self._cluster.bootstrap_servers,
            names.group,
            names.input,
            outcomes_of(names, decides=self._subject.decides),
            self._lives,
        )
        with watch:
            verdict = self._go()
        verdict.prefixes = {"rounds": watch.rounds, **watch.prefixes.checks}
        verdict.torn = dict(watch.prefixes.torn)
        verdict.failure = verdict.failure or watch.failure
        if verdict.torn:
            (self._folder / "torn.json").write_text(json.dumps(watch.prefixes.examples, indent=1))
        return verdict

    def _go(self) -> RunVerdict:
        started = self._clock.monotonic()
        for slot in self._fleet.slots[: self._plan.workers]:
            self._fleet.start(slot)
        self._arena.start()
        self._until(lambda: self._arena.outcomes > 0, _READY_S)
        self._begun.put_on_agenda(self._plan.faults)
        try:
            self._until(lambda: self._agenda.empty, float("inf"))
        except EndFailed as error:
            self._fleet.stop_all(_STOP_S)
            return self._verdict(failure=str(error), logs=str(self._folder))
        drained = self._arena.drain(self._step, _PATIENCE_S)
        stopped = self._fleet.stop_all(_STOP_S)
        self._log("judging")
        return self._judge(drained=drained and stopped, started=started)

    def _verdict(self, **facts: Any) -> RunVerdict:
        begun = dict(sorted(self._begun.done.items()))
        skipped = dict(sorted(self._begun.skipped.items()))
        return RunVerdict(self._plan.seed, begun, skipped, **facts)

    def _judge(self, *, drained: bool, started: float) -> RunVerdict:
        verdict = self._verdict(drained=drained)
        audit = self._audit()
        for name in (*_COUNTS, *_OFFENCES):
            setattr(verdict, name, audit.get(name, 0))
        verdict.copies = sum(audit.get("copies", {}).values())
        if self._lives is not None:
            verdict.lives, verdict.failure = self._lives.number, self._lives.failure
            verdict.required, verdict.lost = audit.get("required", 0), audit.get("lost", 0)
            verdict.undue_dead_letters = audit.get("undue_dead_letters", 0)
            verdict.undue_filtered = audit.get("undue_filtered", 0)
        else:
            verdict.undue_dead_letters = verdict.dead_lettered - self._arena.left("bad")
            spam = self._arena.left("spam") if self._subject.decides else 0
            verdict.undue_filtered = verdict.filtered - spam
        verdict.misread = self._arena.misread()
        verdict.models = len(self._arena.models)
        verdict.format, verdict.delivery = self._plan.format, self._subject.delivery
        allowed = self._fleet.repeatable if verdict.delivery == "at_least_once" else 0
        # A record that is labelled again is copied again, by the one route that copies.
        verdict.duplicates_allowed = 2 * allowed if self._subject.decides else allowed
        verdict.longest_stall_s = round(self._arena.longest_stall, 1)
        verdict.producers_replaced = self._fleet.replaced
        verdict.requests = self._cluster.wires.meddled() if self._cluster.wires else {}
        verdict.exit_codes = dict(sorted(self._fleet.exits.items()))
        verdict.seconds = round(self._clock.monotonic() - started, 1)
        verdict.logs = str(self._folder)
        if not verdict.holds:
            (self._folder / "audit.json").write_text(json.dumps(audit, indent=1))
            for node in self._cluster.kafka.nodes if self._cluster.kafka else ():
                shutil.copy(node.log, self._folder / f"broker-{node.port}.log")
        return verdict

    def _audit(self) -> dict[str, Any]:
        """Return the findings; without any, nothing counts as consumed and the run fails."""
        names = self._arena.names
        try:
            if self._lives is None:
                return audited(self._cluster, names, self._subject.delivery, self._routes())
            topics = outcomes_of(names, decides=self._subject.decides)
            return judged(self._cluster.bootstrap_servers, self._lives, names.input, topics)
        except (AuditFailed, StreamlabelError) as error:
            return {"failed": str(error)}

    def _until(self, condition: Callable[[], bool], timeout: float) -> None:
        deadline = self._clock.monotonic() + timeout
        while not condition() and self._clock.monotonic() < deadline:
            self._step()
            self._clock.sleep(_STEP_S)

    def _step(self) -> None:
        self._agenda.run_due()
        self._fleet.supervise()
