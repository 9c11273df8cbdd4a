"""Turns token ids into probabilities with a forward pass, and tells its errors apart.

Owns: how logits become probabilities, and which errors mean that memory ran out.
Thread: infer, the sole caller of the model; built on the load thread.
Must not import: transformers; it is given a forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from worker.core.records import Activation, ModelCard, ModelInput, Prediction
from worker.errors import ModelUnavailable, OutOfMemory
from worker.inference.threads import set_threads

# Messages of a RuntimeError that means the same as `torch.OutOfMemoryError`: from the CPU's
# allocator (c10/core/impl/alloc_cpu.cpp), from OpenVINO (src/plugins/intel_cpu/src/node.cpp), and
# from libraries that can't allocate a workspace.
_OUT_OF_MEMORY = ("can't alloc", "not enough memory", "bad_alloc", "_STATUS_ALLOC_FAILED")

Result = TypeVar("Result")


class Forward(Protocol):
    """A forward pass, described by facts, so that an engine need not be a torch module.

    Attributes:
        name: the value of `model.engine` that it implements, or the variant of `padded` that runs.
        device: the kind of device that computes: `cpu` or `cuda`.
        dtype: the number type that it computes in, such as `float32`.
        longest: tokens of the longest text that it takes; None if there is no limit.
        pads: True if a pass computes the rectangle around its texts, False if only their tokens.
        parallel: whether several threads may call it at once.
    """

    name: str
    device: str
    dtype: str
    longest: int | None
    pads: bool
    parallel: bool

    def __call__(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Return the logits [texts, labels] of each text's ids."""
        ...  # pragma: no cover - a protocol


class TransformersClassifier:
    """Labels texts with a transformers model for sequence classification.

    Args:
        forward: the model's forward pass.
        card: describes the model; `card.labels` are in the order of the model's outputs, and
            `card.activation` turns the outputs into probabilities.
        samples: plain texts for the warm-up.
        tune: measures `predict` and returns the best number of tokens for a pass; None keeps the
            card's number.
        memory: bytes that the process is expected to need, if known.
        threads: threads that a pass computes with; None leaves the number of the calling thread.
    """

    def __init__(
        self,
        forward: Forward,
        card: ModelCard,
        *,
        samples: Iterable[ModelInput] = (),
        tune: Callable[[Callable[[ModelInput], object]], int] | None = None,
        memory: int | None = None,
        threads: int | None = None,
    ) -> None:
        self.card = card
        self.forward, self.memory = forward, memory
        self._samples, self._tune, self._threads = samples, tune, threads

    def warm_up(self) -> None:
        """Label the samples, and find the best size of a pass.

        Raises:
            ModelUnavailable: the model fails on plain texts.
        """
        try:
            for sample in self._samples:
                self.predict(sample)
            if self._tune:
                self.card = replace(self.card, forward_tokens=self._tune(self.predict))
        except (ArithmeticError, RuntimeError, LookupError, ValueError, OutOfMemory) as error:
            raise ModelUnavailable(f"{self.card.name} fails on plain texts: {error}") from error

    def predict(self, model_input: ModelInput) -> list[Prediction]:
        """Return one prediction for each text of `model_input`, in its order.

        Raises:
            FloatingPointError: an output is not a probability; no text gets a result.
            OutOfMemory: the pass does not fit the memory.
            RuntimeError: torch fails for another reason.
        """
        return self.begin(model_input)()

    def begin(self, model_input: ModelInput) -> Callable[[], list[Prediction]]:
        """Begin a forward pass, and return a function that waits for its predictions.

        A CPU computes the pass here; a GPU computes while the caller goes on. Both this method and
        the function that it returns raise the errors of `predict`.
        """
        if self._threads and torch.get_num_threads() != self._threads:
            set_threads(self._threads)  # the thread that calls may have run another model
        begin = partial(begin_scores, self.forward, model_input.ids, self.card.activation)
        wait = self._within_memory(begin, model_input)
        return lambda: self._predictions(self._within_memory(wait, model_input), model_input)

    def _predictions(self, table: Tensor, model_input: ModelInput) -> list[Prediction]:
        if not torch.isfinite(table).all():
            raise FloatingPointError(
                f"the model returned a probability that is not a finite number ({self.card.dtype})"
            )
        if self.card.activation == "none" and not ((table >= 0) & (table <= 1)).all():
            raise FloatingPointError(
                "model.activation = 'none', but the model's outputs lie between "
                f"{table.min():.3g} and {table.max():.3g}, and probabilities between 0 and 1: use "
                "softmax (one label applies) or sigmoid (several may)"
            )
        texts = zip(table.tolist(), model_input.ids, model_input.truncated, strict=True)
        return [Prediction(tuple(row), len(ids), truncated) for row, ids, truncated in texts]

    def _within_memory(self, compute: Callable[[], Result], model_input: ModelInput) -> Result:
        """Return the result, or raise OutOfMemory if torch reports that in one of its ways."""
        try:
            return compute()
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
        # Raised outside of the handler, so that torch's error is not its context: its traceback
        # references the tensors that did not fit, and the caller keeps the error while it tries
        # halves.
        if self.forward.device == "cuda":
            torch.cuda.empty_cache()
        raise OutOfMemory(
            f"a pass of {len(model_input.ids)} texts with {model_input.tokens} tokens does not fit "
            f"the memory of the {self.forward.device} device"
        )


def _is_out_of_memory(error: Exception) -> bool:
    typed = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return typed or any(message in str(error) for message in _OUT_OF_MEMORY)


def scores(forward: Forward, rows: Sequence[Sequence[int]], activation: Activation) -> Tensor:
    """Return the probabilities [texts, labels] of each text's ids, float32, on the CPU."""
    return begin_scores(forward, rows, activation)()


def begin_scores(
    forward: Forward, rows: Sequence[Sequence[int]], activation: Activation
) -> Callable[[], Tensor]:
    """Begin a pass, and return a function that waits for what `scores` returns."""
    with torch.inference_mode():
        table = probabilities(forward(rows), activation)
        if not table.is_cuda:
            return lambda: table
        # Copied now, because a copy that begins later would wait for the passes begun meanwhile.
        copy = torch.empty(table.shape, dtype=table.dtype, pin_memory=True)
        copy.copy_(table, non_blocking=True)
        copied = torch.cuda.current_stream().record_event()

    def wait() -> Tensor:
        copied.synchronize()
        return copy

    return wait


def probabilities(logits: Tensor, activation: Activation) -> Tensor:
    """Return the probabilities of logits [texts, labels]: same shape, always float32.

    Args:
        logits: the model's outputs.
        activation: `softmax` for one label of all; `sigmoid` for independent labels; `none` if the
            outputs are probabilities already.
    """
    logits = logits.float()
    if activation == "none":
        return logits
    return torch.sigmoid(logits) if activation == "sigmoid" else torch.softmax(logits, dim=-1)
