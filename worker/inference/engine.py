"""Which forward pass runs: the fastest that this model bears, proven on texts.

A pass that is not near enough to the plain one in float32, each text alone, is not taken. Runs
at start, before a record is read. Must not import transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from worker.clock import Clock
from worker.core.records import Activation
from worker.errors import ModelUnavailable, SettingsError
from worker.inference.frames import Frame
from worker.inference.linears import prepack
from worker.inference.packing import CannotPack, PackedForward, layout
from worker.inference.padding import PaddedForward, Side, Unpadded
from worker.inference.self_check import (
    MATES_TOLERANCE,
    TOLERANCE,
    Answers,
    Rows,
    answers,
    difference,
    few,
)
from worker.inference.torch_engine import Forward
from worker.logs import get_logger

Engine = Literal["auto", "packed", "padded"]

# Types whose plain linear layer copies its bias out first; float32's does not.
_PREPACKED = (torch.bfloat16,)

log = get_logger(__name__)

Way = Callable[[nn.Module], Forward]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model before it is loaded.

    Attributes:
        load: the model in a type, in evaluation mode, on its device; called up to three times, and
            one at a time is held.
        rows: ids of texts to check it with.
        frames: what it takes beside ids, mask and positions, by name.
        longest: tokens that it has positions for; None where it counts none.
        pad_id: id to pad with; None if it has none.
        padding_side: the tokenizer's; padding on the right is tried first.
        activation: makes probabilities of its outputs, for the check.
    """

    load: Callable[[torch.dtype], nn.Module]
    rows: Callable[[nn.Module], Rows]
    frames: Callable[[nn.Module], Mapping[str, Frame]]
    longest: Callable[[nn.Module], int | None]
    pad_id: int | None
    padding_side: Side
    activation: Activation

    def packed(self, model: nn.Module) -> PackedForward:
        """All texts in one row. Raises CannotPack."""
        return PackedForward(model, self.frames(model))

    def padded(self, model: nn.Module, side: Side = "right") -> PaddedForward:
        """A rectangle of texts."""
        return PaddedForward(
            model,
            self.pad_id,
            frames=self.frames(model),
            side=side,
            longest=self.longest(model),
        )

    def by_length(self, model: nn.Module) -> Unpadded:
        """Texts of equal length at a time."""
        return Unpadded(self.padded(model), "by_length")

    def one_by_one(self, model: nn.Module) -> Unpadded:
        """A text at a time: as the model is right by definition."""
        return Unpadded(self.padded(model), "one_by_one", at_once=1)

    def ways(self) -> list[Way]:
        """The plain passes, fastest first."""
        on_the_left = [lambda model: self.padded(model, "left")]
        others = on_the_left if self.padding_side == "left" else []
        return [self.padded, *others, self.by_length, self.one_by_one]


def can_pack(wanted: Engine, model_class: str, config: Any) -> bool:
    """Whether to try the packed pass.

    Raises:
        SettingsError: it is asked for, and there is none for this model.
    """
    if wanted == "padded":
        return False
    try:
        layout(model_class, config)
    except CannotPack as error:
        if wanted == "packed":
            raise SettingsError(
                f"model.engine = 'packed', but {error}: use auto or padded"
            ) from error
        log.info("texts are padded", reason=str(error))
        return False
    return True


def choose(
    candidate: Candidate,
    *,
    pack: bool,
    insist: bool,
    dtype: torch.dtype,
    plain: torch.dtype,
    clock: Clock,
) -> Forward:
    """The fast forward pass, or the plain one where the fast one is too far from it.

    Args:
        candidate: the model.
        pack: take the packed pass.
        insist: refuse instead of falling back.
        dtype: what to compute in.
        plain: what to fall back to.
        clock: bounds what a start pays for the check.

    Raises:
        ModelUnavailable: the pass that is insisted on is not near enough, or the model fails on
            plain texts.
    """
    if not pack and dtype is plain:  # there is nothing to fall back to
        return _right(candidate, candidate.load(plain), clock)
    model = candidate.load(torch.float32)
    alone = _alone(candidate, model, candidate.rows(model), clock)
    way = candidate.packed if pack else _plain_way(candidate, model, clock)
    if dtype is not torch.float32:
        del model  # two models at once may be more than the memory holds
        model = candidate.load(dtype)
    if dtype in _PREPACKED and next(model.parameters()).device.type == "cpu":
        prepack(model)
    fast = way(model)
    if _near_enough(fast, alone, TOLERANCE[dtype], insist=insist):
        return fast
    del fast, model
    model = candidate.load(plain)
    return _right(candidate, model, clock) if pack else way(model)


def _right(candidate: Candidate, model: nn.Module, clock: Clock) -> Forward:
    return _plain_way(candidate, model, clock)(model)


def _alone(candidate: Candidate, model: nn.Module, rows: Rows, clock: Clock) -> Answers:
    forward = candidate.one_by_one(model)
    try:
        return answers(forward, rows, candidate.activation, clock)
    except Exception as error:
        dtype = next(model.parameters()).dtype
        raise ModelUnavailable(
            f"the model fails on plain texts in {dtype}: {type(error).__name__}: {error}"
        ) from error


def _near_enough(fast: Forward, alone: Answers, tolerance: float, *, insist: bool) -> bool:
    worst = _off(fast, alone)
    if worst <= tolerance:
        return True
    if insist:
        raise ModelUnavailable(
            f"the {fast.name} forward pass is {worst:.2g} off the plain one, and at most "
            f"{tolerance:g} is allowed: use model.engine = 'auto'"
        )
    log.warning(
        "too far from the plain forward pass, which runs instead",
        engine=fast.name,
        difference=worst,
        tolerance=tolerance,
    )
    return False


def _off(forward: Forward, alone: Answers) -> float:
    """How far a pass is from the answers; infinite where it fails."""
    try:
        return difference(forward, alone)
    except Exception as error:  # noqa: BLE001 - whatever ails it, a plainer pass is there
        log.warning("a forward pass fails", engine=forward.name, error=repr(error))
        return math.inf


@dataclass(frozen=True, slots=True)
class _Trial:
    """A plain pass that was tried on the check's texts."""

    way: Way
    forward: Forward
    off: float
    seconds: float


def _plain_way(candidate: Candidate, model: nn.Module, clock: Clock) -> Way:
    """The fastest plain pass in which no text changes another's result."""
    alone = _alone(candidate, model, few(candidate.rows(model)), clock)
    tolerance = MATES_TOLERANCE[next(model.parameters()).dtype]
    trials = list[_Trial]()
    for way in candidate.ways():
        began, forward = clock.monotonic(), way(model)
        off = _off(forward, alone)
        trials.append(_Trial(way, forward, off, clock.monotonic() - began))
        if off <= tolerance:
            break
    _say(trials, tolerance)
    return trials[-1].way


def _say(trials: Sequence[_Trial], tolerance: float) -> None:
    first, last = trials[0], trials[-1]
    if not last.off <= tolerance:
        log.warning(
            "the model gives the same text other probabilities each time",
            difference=last.off,
            tolerance=tolerance,
        )
    elif not last.forward.pads:
        log.warning(
            "padding changes results with this model: texts run unpadded, which is slower",
            difference=first.off,
            tolerance=tolerance,
            engine=last.forward.name,
            times_as_long=round(last.seconds / max(first.seconds, 1e-9), 1),
        )
