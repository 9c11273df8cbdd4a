"""Selects the fastest forward pass that is numerically correct for this model.

A pass that differs too much from the reference (float32, each text alone) is rejected.

Owns: the choice between packed and padded passes, and the fallback.
Thread: load, before a record is read.
Must not import: transformers.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from worker.clock import Clock
from worker.core.records import Activation
from worker.errors import ModelUnavailable, SettingsError
from worker.inference.classifier import Forward
from worker.inference.extra_inputs import ExtraInput
from worker.inference.fastest import faster
from worker.inference.linears import gains, prepack
from worker.inference.openvino_model import CannotConvert
from worker.inference.openvino_pass import Converter
from worker.inference.packing import CannotPack, PackedForward, layout
from worker.inference.padding import PaddedForward, Side, Unpadded
from worker.inference.self_check import (
    SHARED_PASS_TOLERANCE,
    TOLERANCE,
    Reference,
    Rows,
    difference,
    reference_of,
    subset_of,
)
from worker.inference.shapes import limit
from worker.logs import get_logger

Engine = Literal["auto", "packed", "padded", "openvino"]

log = get_logger(__name__)

BuildPass = Callable[[nn.Module], Forward]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model before it is loaded.

    Attributes:
        load: returns the model in a number type, in evaluation mode, on its device; called up to
            three times, and only one of them is held at a time.
        rows: ids of texts to check it with.
        extra_inputs: its inputs other than ids, mask and positions, by name.
        longest: tokens of the longest text that it takes; None if there is no limit.
        pad_id: id to pad with; None if it has none.
        padding_side: the tokenizer's; padding on the right is tried first.
        activation: turns its outputs into probabilities, for the check.
        converter: makes the pass by OpenVINO; None if it does not apply.
        divided: returns a pass that runs its parts side by side, if that applies.
        prepacks: let linear layers have weights in oneDNN's layout.
    """

    load: Callable[[torch.dtype], nn.Module]
    rows: Callable[[nn.Module], Rows]
    extra_inputs: Callable[[nn.Module], Mapping[str, ExtraInput]]
    longest: Callable[[nn.Module], int | None]
    pad_id: int | None
    padding_side: Side
    activation: Activation
    converter: Converter | None
    divided: Callable[[Forward], Forward]
    prepacks: bool = True

    def packed(self, model: nn.Module) -> PackedForward:
        """Return the pass that joins all texts in one row. Raises CannotPack."""
        return PackedForward(model, self.extra_inputs(model), longest=self.longest(model))

    def padded(self, model: nn.Module, side: Side = "right") -> PaddedForward:
        """Return the pass that pads texts to a rectangle."""
        return PaddedForward(
            model,
            self.pad_id,
            extra_inputs=self.extra_inputs(model),
            side=side,
            longest=self.longest(model),
        )

    def by_length(self, model: nn.Module) -> Unpadded:
        """Return the pass that runs texts of equal length together."""
        return Unpadded(self.padded(model), "by_length")

    def one_by_one(self, model: nn.Module) -> Unpadded:
        """Return the pass that runs one text at a time, which is correct by definition."""
        return Unpadded(self.padded(model), "one_by_one", at_once=1)

    def by_openvino(self, model: nn.Module, converter: Converter) -> Forward:
        """Return the pass by OpenVINO. Raises CannotConvert or RuntimeError."""
        return converter.forward(
            model,
            extra_inputs=self.extra_inputs(model),
            longest=self.longest(model),
            pad_id=self.pad_id,
            side=self.padding_side,
        )

    def padded_passes(self) -> list[BuildPass]:
        """Return the padded pass and its variants, fastest first."""
        on_the_left = [lambda model: self.padded(model, "left")]
        others = on_the_left if self.padding_side == "left" else []
        return [self.padded, *others, self.by_length, self.one_by_one]


def can_pack(wanted: Engine, model_class: str, config: Any) -> bool:
    """Return whether to try the packed pass.

    Raises:
        SettingsError: `packed` is set, and this model can't be packed.
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
        log.info("model can't be packed: using the padded engine", reason=str(error))
        return False
    return True


def choose(
    candidate: Candidate,
    *,
    pack: bool,
    insist: bool,
    dtype: torch.dtype,
    fallback: torch.dtype,
    clock: Clock,
) -> Forward:
    """Return the fast forward pass, or a padded one if the fast one differs too much.

    Args:
        candidate: the model.
        pack: try the packed pass.
        insist: raise instead of falling back.
        dtype: number type of the fast pass.
        fallback: number type of the pass to fall back to.
        clock: bounds the time that a start spends on the check.

    Raises:
        ModelUnavailable: `insist` is set and the pass differs too much, or the model fails on
            plain texts.
    """
    converter = candidate.converter
    if not (pack or converter) and dtype is fallback:  # there is nothing to fall back to
        return candidate.divided(_fastest_padded(candidate, candidate.load(fallback), clock))
    model = candidate.load(torch.float32)
    reference = _reference(candidate, model, candidate.rows(model), clock)
    other = _by_openvino(candidate, model, reference)
    if other and converter and converter.insists:
        return other
    build = candidate.packed if pack else _choose_padded(candidate, model, clock)
    if dtype is not torch.float32:
        del model  # the memory may not hold two models at once
        model = candidate.load(dtype)
    prepacked = candidate.prepacks and _prepacks(model, dtype, clock)
    if prepacked:
        limit(model)
    fast = build(model)
    if prepacked:
        prepack(model)
    if _is_accurate(fast, reference, TOLERANCE[dtype], insist=insist):
        return _faster(candidate.divided(fast), other, reference, clock)
    del fast, model
    model = candidate.load(fallback)
    usual = _fastest_padded(candidate, model, clock) if pack else build(model)
    return _faster(candidate.divided(usual), other, reference, clock)


def _prepacks(model: nn.Module, dtype: torch.dtype, clock: Clock) -> bool:
    if dtype is torch.bfloat16:  # its plain layers always copy the bias
        return next(model.parameters()).device.type == "cpu"
    return gains(model, clock)


def _by_openvino(candidate: Candidate, model: nn.Module, reference: Reference) -> Forward | None:
    """Return the pass by OpenVINO, or None if it does not apply, fails or differs too much."""
    converter = candidate.converter
    if converter is None:
        return None
    try:
        forward = candidate.by_openvino(model, converter)
    except (CannotConvert, RuntimeError) as error:
        log.log(
            logging.WARNING if converter.insists else logging.INFO,
            "OpenVINO can't run this model: using torch",
            reason=str(error),
        )
        return None
    accurate = _is_accurate(forward, reference, TOLERANCE[converter.dtype], insist=False)
    return forward if accurate else None


def _faster(usual: Forward, other: Forward | None, reference: Reference, clock: Clock) -> Forward:
    if other is None:
        return usual
    with torch.inference_mode():
        return faster(usual, other, reference.rows, clock)


def _fastest_padded(candidate: Candidate, model: nn.Module, clock: Clock) -> Forward:
    return _choose_padded(candidate, model, clock)(model)


def _reference(candidate: Candidate, model: nn.Module, rows: Rows, clock: Clock) -> Reference:
    forward = candidate.one_by_one(model)
    try:
        return reference_of(forward, rows, candidate.activation, clock)
    except Exception as error:
        raise ModelUnavailable(
            f"the model fails on plain texts in {forward.dtype}: {type(error).__name__}: {error}"
        ) from error


def _is_accurate(forward: Forward, reference: Reference, tolerance: float, *, insist: bool) -> bool:
    error = _difference(forward, reference)
    if error <= tolerance:
        return True
    if insist:
        raise ModelUnavailable(
            f"the {forward.name} forward pass differs from the reference by {error:.2g} (tolerance "
            f"{tolerance:g}): use model.engine = 'auto'"
        )
    log.warning(
        "forward pass differs from the reference: using another engine",
        engine=forward.name,
        difference=error,
        tolerance=tolerance,
    )
    return False


def _difference(forward: Forward, reference: Reference) -> float:
    """Return how far a pass differs from the reference; infinity if the pass fails."""
    try:
        return difference(forward, reference)
    except Exception as error:  # noqa: BLE001 - any failure leads to a simpler pass
        log.warning("forward pass failed its check", engine=forward.name, error=repr(error))
        return math.inf


@dataclass(frozen=True, slots=True)
class _Trial:
    """A padded pass that has labelled the texts of the check."""

    build: BuildPass
    forward: Forward
    difference: float
    seconds: float


def _choose_padded(candidate: Candidate, model: nn.Module, clock: Clock) -> BuildPass:
    """Return the fastest padded pass in which no text changes another's result."""
    reference = _reference(candidate, model, subset_of(candidate.rows(model)), clock)
    tolerance = SHARED_PASS_TOLERANCE[next(model.parameters()).dtype]
    trials = list[_Trial]()
    for build in candidate.padded_passes():
        began, forward = clock.monotonic(), build(model)
        error = _difference(forward, reference)
        trials.append(_Trial(build, forward, error, clock.monotonic() - began))
        if error <= tolerance:
            break
    _log_choice(trials, tolerance)
    return trials[-1].build


def _log_choice(trials: Sequence[_Trial], tolerance: float) -> None:
    first, last = trials[0], trials[-1]
    if not last.difference <= tolerance:
        log.warning(
            "model is not deterministic: the same text gets other probabilities each time",
            difference=last.difference,
            tolerance=tolerance,
        )
    elif not last.forward.pads:
        log.warning(
            "padding changes this model's results: running texts unpadded, which is slower",
            difference=first.difference,
            tolerance=tolerance,
            engine=last.forward.name,
            times_as_long=round(last.seconds / max(first.seconds, 1e-9), 1),
        )
