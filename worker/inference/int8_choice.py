"""Tries a forward pass in 8-bit integers, and falls back to the engine without them.

Owns: when the pass in 8-bit integers is used.
Thread: load, before a record is read.
Must not import: transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from worker.clock import Clock
from worker.inference.classifier import Forward
from worker.inference.engine import Candidate, choose
from worker.inference.int8_gate import Gate, seconds_of
from worker.inference.self_check import Rows
from worker.inference.shapes import limit
from worker.logs import get_logger

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Int8:
    """How to try 8-bit integers.

    Attributes:
        rows: ids of the texts that calibrate and judge it.
        wide: number type of layers that stay out.
        only_if_faster: compare it in speed, too.
    """

    rows: Rows
    wide: torch.dtype
    only_if_faster: bool


def choose_int8(
    candidate: Candidate,
    int8: Int8,
    otherwise: Callable[[], Forward],
    *,
    pack: bool,
    insist: bool,
    clock: Clock,
) -> Forward:
    """Return a forward pass in 8-bit integers, or `otherwise()` if its results differ too much.

    Args:
        candidate: the model.
        int8: how to try it.
        otherwise: returns the pass without int8; called only while no other model is held.
        pack: try the packed pass.
        insist: raise instead of falling back from the packed pass.
        clock: bounds the time of the start, and times the passes.

    Raises:
        ModelUnavailable: as `choose`.
    """
    compares = int8.only_if_faster
    allowed = seconds_of(otherwise(), int8.rows, clock) if compares else math.inf
    forward = _quantised(candidate, int8, pack=pack, insist=insist, clock=clock)
    if forward is None:
        return otherwise()
    taken = seconds_of(forward, int8.rows, clock) if compares else 0.0
    if taken < allowed:
        return forward
    log.info("int8 not used: it is not faster", seconds=round(taken, 4), others=round(allowed, 4))
    del forward
    return otherwise()


def _quantised(
    candidate: Candidate, int8: Int8, *, pack: bool, insist: bool, clock: Clock
) -> Forward | None:
    held: list[nn.Module] = []  # the model that the pass runs

    def load(dtype: torch.dtype) -> nn.Module:
        held[:] = [candidate.load(dtype)]
        limit(held[0])
        return held[0]

    forward = choose(
        # Undivided, because the pass states its number type only after the judgement.
        replace(candidate, load=load, converter=None, divided=lambda f: f, prepacks=False),
        pack=pack,
        insist=insist,
        dtype=torch.float32,
        fallback=torch.float32,
        clock=clock,
    )
    gate = Gate(forward, held[0], int8.rows, candidate.activation, wide=int8.wide, clock=clock)
    return candidate.divided(forward) if gate.quantise() else None
