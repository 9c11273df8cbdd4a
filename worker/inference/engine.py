"""Which forward pass runs: the fastest that this model bears, proven on texts.

A fast pass that is not near enough to the plain one in float32, text by text, is not taken. Runs
at start, before a record is read. Must not import transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from worker.errors import ModelUnavailable, SettingsError
from worker.inference.linears import prepack
from worker.inference.packing import CannotPack, PackedForward, layout
from worker.inference.padding import PaddedForward
from worker.inference.self_check import TOLERANCE, Rows, difference, reference
from worker.inference.torch_engine import Forward
from worker.logs import get_logger

Engine = Literal["auto", "packed", "padded"]

# Types whose plain linear layer copies its bias out first; float32's does not.
_PREPACKED = (torch.bfloat16,)

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A model before it is loaded.

    Attributes:
        load: the model in a type, in evaluation mode, on its device; called up to three times, and
            one at a time is held.
        rows: ids of texts to check it with.
        pad_id: id to pad with.
        independent: each output stands alone (sigmoid), instead of one of all (softmax).
    """

    load: Callable[[torch.dtype], nn.Module]
    rows: Callable[[nn.Module], Rows]
    pad_id: int
    independent: bool

    def padded(self, dtype: torch.dtype) -> PaddedForward:
        """The plain pass."""
        return PaddedForward(self.load(dtype), self.pad_id)


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
    candidate: Candidate, *, pack: bool, insist: bool, dtype: torch.dtype, plain: torch.dtype
) -> Forward:
    """The fast forward pass, or the plain one where the fast one is too far from it.

    Args:
        candidate: the model.
        pack: take the packed pass.
        insist: refuse instead of falling back.
        dtype: what to compute in.
        plain: what to fall back to.

    Raises:
        ModelUnavailable: the pass that is insisted on is not near enough.
    """
    if not pack and dtype is plain:
        return candidate.padded(plain)  # nothing to fall back to
    exact = candidate.padded(torch.float32)
    rows = candidate.rows(exact.model)
    expected = reference(exact, rows, independent=candidate.independent)
    model = exact.model
    if dtype is not torch.float32:
        del exact, model  # two models at once may be more than the memory holds
        model = candidate.load(dtype)
    if dtype in _PREPACKED and next(model.parameters()).device.type == "cpu":
        prepack(model)
    fast: Forward = PackedForward(model) if pack else PaddedForward(model, candidate.pad_id)
    try:
        worst = difference(fast, rows, expected, independent=candidate.independent)
    except Exception as error:  # noqa: BLE001 - whatever ails it, the plain pass is there
        worst = math.inf
        log.warning("a forward pass fails", engine=fast.name, error=repr(error))
    if worst <= TOLERANCE[dtype]:
        return fast
    if insist:
        raise ModelUnavailable(
            f"the {fast.name} forward pass is {worst:.2g} off the plain one (at most "
            f"{TOLERANCE[dtype]:g} is borne): use model.engine = 'auto'"
        )
    log.warning(
        "too far from the plain forward pass, which runs instead",
        engine=fast.name,
        difference=worst,
        tolerance=TOLERANCE[dtype],
    )
    del fast, model
    return candidate.padded(plain)
