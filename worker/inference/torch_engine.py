"""What every forward pass of torch has in common: probabilities, and faults told apart.

Owns how logits become probabilities, and where and in what the model computes. Built at start;
then the infer thread alone calls it. Must not import transformers: it is given a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn

from worker.core.records import Activation, ModelCard, ModelInput, Prediction
from worker.errors import ModelUnavailable, OutOfMemory, SettingsError

# Processors that compute in bfloat16; the others convert around each step and are slower for it.
_COMPUTES_BFLOAT16 = ("amx_bf16", "avx512_bf16", "bf16", "sve_bf16")
# What a RuntimeError says that is no `torch.OutOfMemoryError` and means the same: the allocator of
# the CPU (c10/core/impl/alloc_cpu.cpp), and libraries that find no room for their workspace.
_NO_ROOM = ("can't allocate memory", "not enough memory", "_STATUS_ALLOC_FAILED")


class Forward(Protocol):
    """A forward pass of a model; `padding` and `packing` have one each.

    Attributes:
        model: what it runs.
        name: as `model.engine` has it, or what runs instead of `padded`.
        pads: whether it computes the rectangle around its texts, or their tokens alone.
        parallel: whether several threads may call it at once.
    """

    model: nn.Module
    name: str
    pads: bool
    parallel: bool

    def __call__(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Logits [texts, labels] of the ids of each text."""
        ...  # pragma: no cover - a protocol


class TorchClassifier:
    """Labels texts with a transformers model for sequence classification.

    Args:
        forward: the model's forward pass.
        card: what is said of it; `card.labels` in the order of the model's outputs, and
            `card.activation` what makes probabilities of them.
        samples: plain texts to warm up with.
        tune: from `predict` to the tokens that a pass had best have; None keeps the card's.
    """

    def __init__(
        self,
        forward: Forward,
        card: ModelCard,
        *,
        samples: Iterable[ModelInput] = (),
        tune: Callable[[Callable[[ModelInput], object]], int] | None = None,
    ) -> None:
        self.card = card
        self.forward = forward
        self._samples, self._tune = samples, tune

    def warm_up(self) -> None:
        """Label the samples, and find the best size of a pass. Raises ModelUnavailable."""
        try:
            for sample in self._samples:
                self.predict(sample)
            if self._tune:
                self.card = replace(self.card, forward_tokens=self._tune(self.predict))
        except (ArithmeticError, RuntimeError, LookupError, ValueError, OutOfMemory) as error:
            raise ModelUnavailable(f"{self.card.name} fails on plain texts: {error}") from error

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """One prediction for each text of `model_input`, in its order.

        Raises:
            FloatingPointError: an output is no probability; no text gets a result.
            OutOfMemory: the pass does not fit.
            RuntimeError: torch's own.
        """
        found = self._scores(model_input)
        if not torch.isfinite(found).all():
            raise FloatingPointError(
                f"the model gave a probability that is not a finite number ({self.card.dtype})"
            )
        if self.card.activation == "none" and not ((found >= 0) & (found <= 1)).all():
            raise FloatingPointError(
                "model.activation = 'none', but the model's outputs lie between "
                f"{found.min():.3g} and {found.max():.3g}, and probabilities between 0 and 1: use "
                "softmax (one label applies) or sigmoid (several may)"
            )
        texts = zip(found.tolist(), model_input.ids, model_input.truncated, strict=True)
        return [Prediction(tuple(row), len(kept), cut) for row, kept, cut in texts]

    def _scores(self, model_input: ModelInput) -> Tensor:
        try:
            return scores(self.forward, model_input.ids, self.card.activation)
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        # Raised out here, where torch's error is gone: its traceback holds on to the very tensors
        # that did not fit, and the caller keeps what it catches while it tries halves.
        if self.card.device == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory(
            f"a pass of {len(model_input.ids)} texts with {model_input.tokens} tokens does not fit "
            f"the {self.card.device}"
        )


def _is_out_of_memory(error: Exception) -> bool:
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or any(words in str(error) for words in _NO_ROOM)


def scores(forward: Forward, rows: Sequence[Sequence[int]], activation: Activation) -> Tensor:
    """Probabilities [texts, labels] of the ids of each text, float32, on the CPU."""
    with torch.inference_mode():
        return probabilities(forward(rows), activation).cpu()


def probabilities(logits: Tensor, activation: Activation) -> Tensor:
    """Probabilities of logits [texts, labels], same shape, in float32 whatever the model's type.

    Args:
        logits: the model's outputs.
        activation: `softmax`, one of all; `sigmoid`, each alone; `none`, the outputs as they are.
    """
    logits = logits.float()
    if activation == "none":
        return logits
    return torch.sigmoid(logits) if activation == "sigmoid" else torch.softmax(logits, dim=-1)


def longest_input(model: nn.Module, stated: int | None) -> int | None:
    """Tokens that the model has positions for; None where it counts none.

    RoBERTa and its kin number positions from `padding_idx + 1` (create_position_ids_from_input_ids
    in transformers' modeling_roberta.py), so that `max_position_embeddings` states 514 for 512.

    Args:
        model: the model.
        stated: its config's `max_position_embeddings`, if there is one; XLNet states -1.
    """
    shifted = [
        table.num_embeddings - table.padding_idx - 1
        for name, table in model.named_modules()
        if name.endswith(".position_embeddings")
        and isinstance(table, nn.Embedding)
        and table.padding_idx is not None
    ]
    return min(shifted, default=stated if stated and stated > 0 else None)


def choose_device(wanted: Literal["auto", "cpu", "cuda"]) -> str:
    """`cpu` or `cuda`. Raises SettingsError where a GPU is asked for and torch finds none."""
    present = torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise SettingsError("model.device = 'cuda', but torch finds no GPU here: use cpu or auto")
    return "cuda" if present and wanted != "cpu" else "cpu"


def choose_dtype(wanted: Literal["auto", "float32", "bfloat16"], device: str) -> torch.dtype:
    """The type to compute in; `auto` is bfloat16 where the processor computes in it."""
    if wanted == "auto":
        wanted = "bfloat16" if _computes_bfloat16(device) else "float32"
    return torch.bfloat16 if wanted == "bfloat16" else torch.float32


def _computes_bfloat16(device: str) -> bool:
    if device == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of torch can't tell; float32 is right everywhere.
    ask: Any = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = ask()
    return any(capabilities.get(name) for name in _COMPUTES_BFLOAT16)
