"""Draws the faults of a run and their times from the seed alone, before anything runs. Pure.

The same seed and options give the same list of faults, in the same order, with the same targets
and durations. The scheduler of the machine still decides how the workers' threads interleave, so a
replay has the same faults, but not the same interleaving.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

BrokerKind = Literal["apache", "embedded"]
Delivery = Literal["at_least_once", "exactly_once"]
RecordFormat = Literal["json", "avro"]
SignIn = Literal["none", "sasl_ssl"]

# kind -> weight in the draw, shortest and longest duration in seconds
_APACHE: Final[dict[str, tuple[int, float, float]]] = {
    "sigterm": (4, 0, 3),  # a planned stop; the duration is how long the slot stays empty
    "sigkill": (4, 0, 3),
    "sigstop": (2, 8, 11),  # longer than the session timeout
    "join": (3, 0, 0),  # a free slot gets a worker; if none is free, one leaves for good
    "broker_restart": (1, 0, 1),
    "broker_kill": (1, 0, 1),
    "broker_loss": (1, 6, 10),
    "broker_freeze": (1, 2, 5),
    "network_cut": (2, 2, 9),
    "network_delay": (2, 2, 5),
    "poison": (2, 0, 0),
    "unreadable": (2, 0, 0),
    "slow_model": (2, 2, 4),
    "out_of_memory": (2, 2, 4),
    "clock_jump": (1, 3, 6),
    "stage_crash": (1, 0, 0),
    # These wait for records in flight, however fast the machine is.
    "busy_join": (1, 0, 0),  # a worker joins while the others await acknowledgements
    "busy_kill": (1, 0, 3),
    "clock_skew": (1, 0, 3),  # the next process of a slot has a wrong clock for its whole life
    "same_instance": (1, 4, 10),  # a second worker with the identity of one that runs
    "model_change": (2, 0, 0),
    # An administrator causes these.
    "partitions_added": (1, 2, 6),  # to the input, and so much later to the outputs
    "retention": (1, 0, 0),  # deletes records of a partition that the group has not read
    "coordinator_moved": (1, 0, 1),  # by a restart of the broker that coordinates the group
    "producer_quota": (1, 3, 8),
    "topic_remade": (1, 0, 6),  # the input is deleted, and so much later there is another
    "compaction": (1, 4, 9),  # of the input, which removes records before and behind the group
    # In the logs of the brokers, see `storage_faults.py`.
    "disk_full": (1, 6, 10),  # the broker ends itself, and starts once there is space
    "unclean_election": (1, 2, 5),  # of the input: it loses acknowledged records
    # Inside the protocol, see `protocol.py`; `size` chooses the API and the error.
    "reply_lost": (2, 1, 4),
    "error_answer": (3, 1, 4),
    "throttled": (1, 1, 4),
    "api_delay": (1, 2, 6),
    "frame_cut": (1, 1, 3),
    "connection_doubled": (1, 2, 6),
}
# Faults of the schema registry, in runs with a format that needs one.
_REGISTRY: Final[dict[str, tuple[int, float, float]]] = {
    "registry_kill": (3, 2, 10),
    "registry_freeze": (2, 4, 12),  # some are longer than `registry.timeout`
    "registry_delay": (2, 4, 10),
}
# Faults of secrets, in runs whose workers sign in.
_SECRETS: Final[dict[str, tuple[int, float, float]]] = {
    "password_rotated": (3, 1, 6),  # the duration is how long brokers and workers differ
    "certificate_rotated": (3, 1, 6),
}
# TLS hides Kafka's protocol from these.
_READING: Final = (
    "busy_join",
    "reply_lost",
    "error_answer",
    "throttled",
    "api_delay",
    "frame_cut",
)
# After these, a place in the input may have had other records, or its record may be gone.
_RENEWING: Final = ("topic_remade", "compaction", "unclean_election")
_STATIC: Final = ("same_instance",)  # kinds that need members with an identity
# kind -> least size, and how much larger it may be
_SIZES: Final[dict[str, tuple[float, float]]] = {
    "network_delay": (0.05, 0.25),
    "registry_delay": (0.2, 1.5),
    **dict.fromkeys(_SECRETS, (0.0, 1.0)),
    **dict.fromkeys(("reply_lost", "error_answer", "api_delay", "frame_cut"), (0.0, 1.0)),
}
# kind -> most records, or bytes that the disk has left
_WHOLE: Final = {"poison": 4, "unreadable": 4, "retention": 80, "disk_full": 3_000}

_FAULTS: Final = _APACHE | _REGISTRY | _SECRETS
# A member that joins the embedded broker ends everyone's generation, and a dead one never expires.
# So there is one worker at a time. The port of the broker changes with a restart.
_EMBEDDED_KINDS: Final = (
    "sigterm",
    "sigkill",
    "poison",
    "unreadable",
    "slow_model",
    "out_of_memory",
    "clock_jump",
    "stage_crash",
)
SLOTS: Final[dict[BrokerKind, int]] = {"apache": 4, "embedded": 1}
_STATIC_SHARE: Final = 0.4  # of the plans have static members
_RENEWING_SHARE: Final = 0.3  # of the plans may renew the input; `streamlabel audit` can't judge it
_GAP: Final = (0.5, 3.5)  # seconds between the beginnings of two faults


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault.

    Attributes:
        at: seconds after the workers are ready.
        target: selects a worker or broker among those that run then.
        duration: seconds until it is healed, if it is healed at all.
        size: seconds that a packet is delayed or a clock jumps, a number of records, bytes that
            are left, bytes a second, or a choice between 0 and 1.
    """

    at: float
    kind: str
    target: int
    duration: float
    size: float


@dataclass(frozen=True, slots=True)
class Plan:
    """The plan of a run.

    Attributes:
        workers: number at the start.
        static: True for static members, with a transactional id for each slot.
        rate: input records a second.
        format: of input records and results.
        sign_in: of workers.
    """

    seed: int
    workers: int
    static: bool
    partitions: int
    rate: float
    faults: tuple[Fault, ...]
    format: RecordFormat = "json"
    sign_in: SignIn = "none"

    @property
    def renews(self) -> bool:
        """True if the input may lose records, or have several at one offset in turn."""
        return any(fault.kind in _RENEWING for fault in self.faults)


def kinds_of(
    broker: BrokerKind, format_: RecordFormat = "json", sign_in: SignIn = "none"
) -> tuple[str, ...]:
    """Return the kinds of faults that there are, in runs with this broker, format and sign-in."""
    kinds = tuple(_APACHE) if broker == "apache" else _EMBEDDED_KINDS
    if sign_in != "none":
        kinds = (*(kind for kind in kinds if kind not in _READING), *_SECRETS)
    return kinds if format_ == "json" else (*kinds, *_REGISTRY)


def draw(
    seed: int,
    faults: int,
    broker: BrokerKind,
    only: Sequence[str] = (),
    format_: RecordFormat = "json",
    sign_in: SignIn = "none",
) -> Plan:
    """Draw a plan, from all kinds of faults or from `only` those."""
    rng = random.Random(seed)
    workers = rng.randint(2, 3) if broker == "apache" else 1
    static = rng.random() < _STATIC_SHARE and broker == "apache"
    static = static or (set(only).issubset(_STATIC) and bool(only))
    left_out = set() if static else set(_STATIC)
    if rng.random() >= _RENEWING_SHARE and not only:
        left_out.update(_RENEWING)
    kinds = [kind for kind in only or kinds_of(broker, format_, sign_in) if kind not in left_out]
    weights = [_FAULTS[kind][0] for kind in kinds]
    partitions, rate = rng.choice((3, 4, 6)), rng.uniform(80, 200)
    at, drawn = 1.0, []
    for _ in range(faults):
        kind = rng.choices(kinds, weights)[0]
        _, shortest, longest = _FAULTS[kind]
        duration, target = rng.uniform(shortest, longest), rng.randrange(1 << 16)
        drawn.append(Fault(at, kind, target, duration, _size(rng, kind)))
        at += rng.uniform(*_GAP)
    return Plan(seed, workers, static, partitions, rate, tuple(drawn), format_, sign_in)


def _size(rng: random.Random, kind: str) -> float:
    spread = rng.random()
    if kind in _WHOLE:
        return 1 + int(_WHOLE[kind] * spread)
    if kind in ("clock_jump", "clock_skew"):
        return rng.choice((-1, 1)) * 3600 * spread
    if kind == "producer_quota":
        return 4_000 + int(16_000 * spread)
    least, more = _SIZES.get(kind, (0.0, 0.0))
    return least + more * spread
