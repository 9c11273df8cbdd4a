"""Begins the faults of a plan, and ends each some seconds later.

Runs on the harness's thread. Each kind of fault has a method of its name, which returns whether it
found a target.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tests.chaos.agenda import Agenda
from tests.chaos.arena import Arena
from tests.chaos.busy_faults import BusyFaults
from tests.chaos.cluster import Cluster, RegistryAccess
from tests.chaos.fleet import Fleet, WorkerSlot
from tests.chaos.input_faults import InputFaults
from tests.chaos.kafka_faults import KafkaFaults
from tests.chaos.lives import Lives
from tests.chaos.plan import Fault
from tests.chaos.protocol import ERRORS, LOSABLE, Meddling
from tests.chaos.security_faults import SecurityFaults
from tests.chaos.storage_faults import StorageFaults
from worker.clock import SystemClock

Chosen = TypeVar("Chosen")

_REGISTRY_REST_S = 8.0  # between two faults of the registry, in which most workers ask it again


def _choice(among: Sequence[Chosen], fault: Fault) -> Chosen:
    return among[int(fault.size * len(among))]


class Faults(BusyFaults, InputFaults, KafkaFaults, SecurityFaults, StorageFaults):
    """Begins faults, and puts their ends on the agenda.

    Args:
        cluster, arena, fleet: what they break.
        agenda: takes their ends.
        clock: as the agenda's.
        change_model: gives a slot another model.
        lives: of the input's log, in a plan with a fault that ends one.
    """

    def __init__(
        self,
        cluster: Cluster,
        arena: Arena,
        fleet: Fleet,
        agenda: Agenda,
        clock: SystemClock,
        change_model: Callable[[int], None],
        *,
        lives: Lives | None = None,
    ) -> None:
        super().__init__(cluster.bootstrap_servers)
        self._lives = lives
        self._change_model = change_model
        self._cluster, self._arena, self._fleet = cluster, arena, fleet
        self._agenda, self._clock = agenda, clock
        self._down: Any = None  # the broker with a fault; one at a time
        self._cut: set[int] = set()
        self._registry_hurt = False

    def begin(self, fault: Fault) -> bool:
        """Begin a fault; return False if it has no target now."""
        return bool(getattr(self, f"_{fault.kind}")(fault))

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
            self._agenda.after(0.2, self._arena.forget_killed)
        return True

    def _sigstop(self, fault: Fault) -> bool:
        if (slot := self._target(fault)) is None:
            return False
        self._fleet.freeze(slot)
        self._agenda.after(fault.duration, lambda: self._fleet.thaw(slot))
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

    def _clock_skew(self, fault: Fault) -> bool:
        if (slot := self._target(fault)) is None:
            return False
        slot.skew = fault.size
        self._fleet.terminate(slot, fault.duration)
        return True

    def _same_instance(self, fault: Fault) -> bool:
        slot, free = self._target(fault), self._free_slot(fault)
        if slot is None or free is None:
            return False
        self._fleet.start_twin(free, slot)
        self._agenda.after(fault.duration, lambda: self._fleet.terminate(free, None))
        return True

    def _model_change(self, fault: Fault) -> bool:
        if (slot := self._target(fault)) is None:
            return False
        self._change_model(slot.number)
        return True

    def _free_slot(self, fault: Fault) -> WorkerSlot | None:
        """Return an empty slot; if there is none, let a worker leave, so that there will be."""
        for slot in self._fleet.slots:
            if not slot.running and slot.due is None:
                return slot
        leaving = any(slot.stopping or slot.due is not None for slot in self._fleet.slots)
        if not leaving and (slot := self._target(fault)):
            self._fleet.terminate(slot, None)
        return None

    def _stage_crash(self, fault: Fault) -> bool:
        if (slot := self._target(fault)) is None:
            return False
        slot.orders.crash = 1
        return True

    def _broker(
        self,
        fault: Fault,
        hurt: Callable[[Any], None],
        heal: Callable[[Any], None],
        number: int | None = None,
    ) -> bool:
        if self._down is not None or self._cluster.kafka is None:
            return False
        nodes = self._cluster.kafka.nodes
        node = self._down = nodes[(fault.target if number is None else number) % len(nodes)]
        hurt(node)
        self._agenda.after(fault.duration, lambda: self._heal_broker(node, heal))
        return True

    def _heal_broker(self, node: Any, heal: Callable[[Any], None]) -> None:
        def healed() -> bool:
            heal(node)
            return bool(node.up and not node.stopping and node.answers())

        def end() -> None:
            self._down = None

        self._agenda.until_done(f"the broker on port {node.port} back", healed, end)

    def _broker_restart(self, fault: Fault, number: int | None = None) -> bool:
        return self._broker(fault, lambda node: node.terminate(), lambda node: node.start(), number)

    def _broker_kill(self, fault: Fault) -> bool:
        return self._broker(fault, lambda node: node.kill(), lambda node: node.start())

    _broker_loss = _broker_kill  # with a longer duration

    def _broker_freeze(self, fault: Fault) -> bool:
        return self._broker(fault, lambda node: node.freeze(), lambda node: node.thaw())

    def _network_cut(self, fault: Fault) -> bool:
        return self._wire(fault, lambda wires, slot: wires.cut(slot))

    def _network_delay(self, fault: Fault) -> bool:
        return self._wire(fault, lambda wires, slot: wires.slow_down(slot, fault.size))

    def _reply_lost(self, fault: Fault) -> bool:
        return self._meddle(fault, Meddling("lose_reply", _choice(LOSABLE, fault), share=0.5))

    def _error_answer(self, fault: Fault) -> bool:
        api, error = _choice(ERRORS, fault)
        return self._meddle(fault, Meddling("answer_error", api, error, share=0.5))

    def _throttled(self, fault: Fault) -> bool:
        return self._meddle(fault, Meddling("throttle", "Produce"))

    def _api_delay(self, fault: Fault) -> bool:
        return self._meddle(fault, Meddling("delay", _choice(LOSABLE, fault), seconds=1.5))

    def _frame_cut(self, fault: Fault) -> bool:
        return self._meddle(fault, Meddling("cut_frame", _choice(LOSABLE, fault), share=0.3))

    def _meddle(self, fault: Fault, meddling: Meddling) -> bool:
        return self._wire(fault, lambda wires, slot: wires.meddle(slot, meddling))

    def _connection_doubled(self, fault: Fault) -> bool:
        return self._wire(fault, lambda wires, slot: wires.double(slot))

    def _wire(self, fault: Fault, hurt: Callable[[Any, int], None]) -> bool:
        slot, wires = self._target(fault), self._cluster.wires
        if slot is None or wires is None or slot.number in self._cut:
            return False
        self._cut.add(slot.number)
        hurt(wires, slot.number)
        self._agenda.after(fault.duration, lambda: self._heal_wire(wires, slot.number))
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

    # -- the registry ----------------------------------------------------------------------------

    def _registry_kill(self, fault: Fault) -> bool:
        return self._registry(fault, lambda it: it.server.kill(), lambda it: it.server.revive())

    def _registry_freeze(self, fault: Fault) -> bool:
        def thaw(registry: RegistryAccess) -> bool:
            registry.server.thaw()
            return True

        return self._registry(fault, lambda it: it.server.freeze(), thaw)

    def _registry_delay(self, fault: Fault) -> bool:
        def heal(registry: RegistryAccess) -> bool:
            registry.wires.heal(0)
            return True

        return self._registry(fault, lambda it: it.wires.slow_down(0, fault.size), heal)

    def _registry(
        self,
        fault: Fault,
        hurt: Callable[[RegistryAccess], None],
        heal: Callable[[RegistryAccess], bool],
    ) -> bool:
        registry = self._cluster.registry
        if registry is None or self._registry_hurt:
            return False
        self._registry_hurt = True
        hurt(registry)
        self._agenda.after(fault.duration, lambda: self._heal_registry(registry, heal))
        return True

    def _heal_registry(
        self, registry: RegistryAccess, heal: Callable[[RegistryAccess], bool]
    ) -> None:
        self._agenda.until_done(
            "the registry back",
            lambda: heal(registry),
            lambda: self._agenda.after(_REGISTRY_REST_S, self._end_registry_fault),
        )

    def _end_registry_fault(self) -> None:
        self._registry_hurt = False
