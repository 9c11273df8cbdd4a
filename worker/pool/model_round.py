"""Changes the model of a pool: one process after the other.

Owns: the round under way, and what is known of the last one.
Thread: any thread requests a change and reads the state; main steps the round.
Must not import: kafka, torch, transformers.

Each process goes on labelling while it loads. The next one begins when every process is ready
again. If one does not change, or does not become ready, the round ends there: the processes that
changed keep the new model, the others the old one, and the log and a metric say so. `orders` says
why a change takes two orders.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from worker.clock import Clock
from worker.errors import ChangeUnderway
from worker.http.model import ChangeOutcome, ModelChange
from worker.logs import get_logger
from worker.metrics import PoolMetrics
from worker.pool.child import Child
from worker.pool.slot import Slot
from worker.settings import Settings, is_changeable, models_named, plain_values, with_models_of

log = get_logger(__name__)

_IDENTITY: Final = ("name", "revision", "weights_sha256")
# Seconds until all processes are ready: enough for a restart that loads a model. A broker that is
# away for longer, or a hung process, must not keep the round open: no other change could begin.
_PATIENCE: Final = 300.0


@dataclass(slots=True)
class _Order:
    """An order to one process.

    Attributes:
        allowed: whether the new model may take over: the slot has its settings.
        before: the slot's settings until then.
    """

    slot: Slot
    child: Child
    number: int
    before: Settings
    allowed: bool = False


class ModelRound:
    """The models of all processes, and their changes.

    Args:
        slots: all, in the order in which they change.
        metrics: show which process has which model.
        clock: dates the changes.
    """

    def __init__(self, slots: Sequence[Slot], metrics: PoolMetrics, clock: Clock) -> None:
        self._slots, self._metrics, self._clock = slots, metrics, clock
        self._lock = threading.Lock()
        self._last: ModelChange | None = None
        self._wanted: Settings | None = None
        self._left: list[Slot] = []
        self._order: _Order | None = None
        self._waits_since: float | None = None
        self._numbers = 0
        self._outcome: ChangeOutcome = "unchanged"
        self._shown: dict[int, tuple[str, ...]] = {}

    # -- any thread ----------------------------------------------------------------------------

    @property
    def settings(self) -> Settings:
        """The settings of the first process, with its model."""
        return self._slots[0].settings

    def change(self, settings: Settings, trigger: str) -> ModelChange:
        """Request a change to the model of these settings. It begins in the main loop.

        Raises:
            ChangeUnderway: another change has not ended yet.
        """
        with self._lock:
            last = self._last
            if last is not None and last.outcome == "loading":
                raise ChangeUnderway(
                    f"a change to {last.name}, requested by {last.trigger}, is under way in the "
                    "processes of this pool: try again when it has ended, as GET /model and the log "
                    "show"
                )
            now_ms, name = self._clock.wall_ms(), models_named(settings)
            revision = settings.model.revision
            self._last = ModelChange(trigger, name, revision, "loading", now_ms)
            self._wanted = settings
            return self._last

    def refuse(self, trigger: str, reason: str) -> None:
        """Note a request that can't be begun, because the settings can't be read."""
        now_ms = self._clock.wall_ms()
        with self._lock:
            if self._last is None or self._last.outcome != "loading":
                self._last = ModelChange(trigger, "", None, "refused", now_ms, now_ms, reason)
        log.error("model not changed: the one in use stays", trigger=trigger, reason=reason)

    def state(self) -> dict[str, Any]:
        """Return the members of GET /model, and those of each process in `processes`.

        `model` is null while the processes don't have the same one.
        """
        processes = [
            {"slot": slot.number, "pid": slot.child.pid if slot.child else None} | _reported(slot)
            for slot in self._slots
        ]
        models = [process["model"] for process in processes]
        same = len({_identity(model) for model in models}) == 1
        last = self._last
        return {
            "model": models[0] if same else None,
            "change": last.as_json() if last else None,
            "processes": processes,
        }

    # -- main ----------------------------------------------------------------------------------

    def step(self) -> None:
        """Take the next step of the round that was requested. Never waits."""
        self._show()
        if self._wanted is None:
            return
        if self._order is not None:
            self._follow(self._order, self._wanted)
            return
        if not self._left:
            self._left, self._outcome = list(self._slots), "unchanged"
        verdicts = [(slot.number, *slot.ready()) for slot in self._slots]
        unready = [(number, why) for number, ready, why in verdicts if not ready]
        if unready:
            self._wait(*unready[0])
        else:
            self._waits_since = None
            self._begin(self._left[0], self._wanted)

    def _wait(self, number: int, why: str) -> None:
        """Wait for the process of this slot to be ready; end the round after a while."""
        now = self._clock.monotonic()
        if self._waits_since is None:
            self._waits_since = now
        if now - self._waits_since >= _PATIENCE:
            self._stop(
                "failed",
                f"slot {number} is not ready after {_PATIENCE:g} s: {why}; repeat the request once "
                "it is",
            )

    def _begin(self, slot: Slot, wanted: Settings) -> None:
        if slot.child is None or self._last is None:
            return
        self._numbers += 1
        values = plain_values(wanted)
        order = {
            "number": self._numbers,
            "trigger": self._last.trigger,
            "model": {name: v for name, v in values.items() if is_changeable(name)},
        }
        self._order = _Order(slot, slot.child, self._numbers, slot.settings)
        slot.child.order(order)
        log.info("process begins to change its model", slot=slot.number, model=models_named(wanted))

    def _follow(self, order: _Order, wanted: Settings) -> None:
        told = order.child.report.model if order.child.report else {}
        change = told.get("change") if told.get("begun") == order.number else None
        if change and change["outcome"] != "loading":
            self._ended(order, wanted, change["outcome"], change["reason"])
        elif order.slot.child is not order.child:
            # It has labelled with the new model, or will in its next process; or it never has.
            outcome: ChangeOutcome = "changed" if order.allowed else "failed"
            self._ended(order, wanted, outcome, f"it ended meanwhile: {order.child.reason}")
        elif told.get("loaded") == order.number and not order.allowed:
            order.slot.settings = with_models_of(order.before, wanted)
            order.allowed = True
            order.child.order({"take_over": order.number})

    def _ended(self, order: _Order, wanted: Settings, outcome: ChangeOutcome, why: str) -> None:
        self._order = None
        if outcome in ("refused", "failed"):
            order.slot.settings = order.before
            self._stop(outcome, f"slot {order.slot.number}: {why}")
            return
        order.slot.settings = with_models_of(order.before, wanted)
        if outcome == "changed":
            self._outcome = outcome
        del self._left[0]
        log.info("process has changed its model", slot=order.slot.number, outcome=outcome)
        if not self._left:
            self._note(self._outcome, why if self._outcome == "unchanged" else "")

    def _stop(self, outcome: ChangeOutcome, why: str) -> None:
        at = len(self._slots) - len(self._left)
        kept = f"slots {_numbers(self._slots[at:])} keep the model they had"
        new = f"; slots {_numbers(self._slots[:at])} have the new one" if at else ""
        self._left, self._waits_since = [], None
        self._note(outcome, f"{why} ({kept}{new})")

    def _note(self, outcome: ChangeOutcome, reason: str) -> None:
        with self._lock:
            self._wanted = None
            if self._last is not None:
                now_ms = self._clock.wall_ms()
                self._last = replace(self._last, outcome=outcome, reason=reason, ended_ms=now_ms)
        facts = {"trigger": self._last.trigger, "model": self._last.name} if self._last else {}
        if outcome in ("refused", "failed"):
            log.error("model not changed in every process", reason=reason, **facts)
        else:
            log.info("every process has the model", outcome=outcome, **facts)

    def _show(self) -> None:
        """Keep the metric of the processes' models up to date."""
        gauge = self._metrics.process_model
        for slot in self._slots:
            model = _reported(slot)["model"]
            shown = (str(slot.number), *_identity(model)) if model else ()
            before = self._shown.get(slot.number, ())
            if shown != before:
                if before:
                    gauge.remove(*before)
                if shown:
                    gauge.labels(*shown).set(1)
                self._shown[slot.number] = shown


def _reported(slot: Slot) -> dict[str, Any]:
    """Return the members `model` and `change` of the slot's last report; null without one."""
    child = slot.child
    told = child.report.model if child and child.report else {}
    return {"model": told.get("model"), "change": told.get("change")}


def _identity(model: Mapping[str, Any] | None) -> tuple[str, ...]:
    return tuple(str(model[name]) for name in _IDENTITY) if model else ()


def _numbers(slots: Sequence[Slot]) -> str:
    return ", ".join(str(slot.number) for slot in slots)
