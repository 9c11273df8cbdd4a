"""A worker that is killed and started once more loses nothing: the proof that tries the harness."""

from __future__ import annotations

from tests.kube.verdicts import Failed
from tests.proofs.ground import Ground
from tests.proofs.registry import Proved, proof

_POISON = 0.01


@proof()
def killed_worker(ground: Ground) -> Proved:
    """A worker killed at half of the records, and another that goes on."""
    arena = ground.feed(poison=_POISON)
    half = ground.order.records // 2
    ground.kill_when(ground.worker(), lambda: ground.outcomes >= half, f"{half} outcomes")
    worker = ground.worker()
    ground.labelled(arena)
    if code := worker.stop():
        raise Failed(f"the worker ended with {code}")
    once = ground.order.delivery == "exactly_once"
    return Proved(
        f"killed at {half:,} outcomes",
        ground.audit(),
        arena.produced,
        dead_letters=arena.bad,
        twice_allowed=0 if once else None,
    )
