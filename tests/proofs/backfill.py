"""Two workers backfill a range and are killed by turns: the range is labelled, and nothing else."""

from __future__ import annotations

from tests.kube.verdicts import Failed
from tests.proofs.ground import Command, Ground
from tests.proofs.registry import Proved, proof
from worker.clock import SystemClock
from worker.kafka_io.admin import Admin
from worker.settings import KafkaSettings

_POISON = 0.01
_FIRST, _LAST = 0.1, 0.9  # the range, as shares of each partition
_KILLS = (0.15, 0.4, 0.65, 0.85)  # at these shares of the range
_FEW = 5_000  # records; fewer are labelled too fast to be interrupted
_FEW_SECONDS = 20.0  # so they are spread over this time


@proof()
def backfill(ground: Ground) -> Proved:
    """Two backfills of one group, killed in turn four times and repeated."""
    arena = ground.produced(poison=_POISON)
    with Admin(KafkaSettings(bootstrap_servers=ground.broker.bootstrap_servers)) as admin:
        ends = admin.end_offsets(ground.topics.input)
    starts = {number: round(end * _FIRST) for number, end in ends.items()}
    bounds = {number: round(end * _LAST) for number, end in ends.items()}
    size, began = sum(bounds.values()) - sum(starts.values()), SystemClock().monotonic()

    def start() -> Command:
        return ground.start("backfill", *_arguments(ground, size, starts, bounds))

    def done() -> int:
        return sum(ends.values()) - sum(starts.values()) - ground.lag

    running = [start(), start()]
    for share in _KILLS:
        victim = running.pop(0)
        least = round(size * share)
        ground.kill_when(victim, lambda: done() >= least, f"{least} offsets are committed")  # noqa: B023 - called at once
        running.append(start())
    for command in running:
        command.wait()
        if not command.document["holds"] or command.document["offsets"] != size:
            raise Failed(f"it ended with 0 and this report: {command.document}")
    seconds = SystemClock().monotonic() - began
    once = ground.order.delivery == "exactly_once"
    return Proved(
        f"killed {len(_KILLS)} times, {size:,} of {arena.produced:,} records in the range",
        ground.audit(),
        size,
        dead_letters=None,
        twice_allowed=0 if once else None,
        figures={"records_per_s": size / seconds, "kills": len(_KILLS)},
    )


def _arguments(
    ground: Ground, size: int, starts: dict[int, int], bounds: dict[int, int]
) -> tuple[str, ...]:
    rate = f"{max(1.0, size / _FEW_SECONDS):.0f}" if size < _FEW else "1000000"
    return (
        *("--from", _offsets(starts), "--to", _offsets(bounds), "--rate", rate, "--json"),
        *("--model", ground.model, "--model-engine", "packed", "--model-threads", "1"),
        *("--delivery", ground.order.delivery, "--kafka-session-timeout", "10"),
    )


def _offsets(offsets: dict[int, int]) -> str:
    return ",".join(f"{number}:{offset}" for number, offset in offsets.items())
