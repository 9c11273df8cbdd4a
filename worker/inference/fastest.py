"""Compares two engines that are both correct, on this machine.

Owns: the measurement, which takes at most a few seconds of a start.
Thread: load, before a record is read.
Must not import: torch, transformers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from worker.clock import Clock
from worker.inference.classifier import Forward
from worker.logs import get_logger

Rows = Sequence[Sequence[int]]

# Seconds that the comparison may take; both engines are measured once in any case.
_TIME_LIMIT = 2.0
# A machine that is busy for a moment slows one pass down, and rarely all of them.
_ROUNDS = 5
# Throughput decides unless it differs by less than this factor; then the time of one text does.
_SAME = 1.05

log = get_logger(__name__)


def faster(usual: Forward, other: Forward, rows: Rows, clock: Clock) -> Forward:
    """Return the faster engine; the usual one if neither is.

    Args:
        usual: the engine to prefer.
        other: another engine.
        rows: ids of typical texts. Each round takes others of them, as a stream does: a pass of a
            size that was run before is faster.
        clock: times the passes.
    """
    engines = (usual, other)
    together, alone = [math.inf, math.inf], [math.inf, math.inf]
    began = clock.monotonic()
    for number in range(_ROUNDS):
        if number and clock.monotonic() - began > _TIME_LIMIT:
            break
        many = [row for index, row in enumerate([*rows, *rows]) if index != number]
        for index, engine in enumerate(engines):
            together[index] = min(together[index], _seconds(engine, many, clock))
            one = [rows[-1 - number % len(rows)]]
            alone[index] = min(alone[index], _seconds(engine, one, clock))
    wins = together[1] * _SAME < together[0] or (
        together[1] < together[0] * _SAME and alone[1] < alone[0]
    )
    log.info(
        "engines compared",
        together_ms={e.name: round(1000 * s, 1) for e, s in zip(engines, together, strict=True)},
        alone_ms={e.name: round(1000 * s, 1) for e, s in zip(engines, alone, strict=True)},
        engine=engines[wins].name,
    )
    return engines[wins]


def _seconds(engine: Forward, rows: Rows, clock: Clock) -> float:
    start = clock.monotonic()
    engine(rows)
    return clock.monotonic() - start
