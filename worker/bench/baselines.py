"""What an engine is measured against: transformers' own `pipeline()`, and bare matrix products.

Owns both and the count of a model's arithmetic. Only `streamlabel bench` runs it, in a process of
its own, on the main thread. Must not import kafka.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import pipeline

from worker.clock import Clock
from worker.inference.checkpoint import resolve
from worker.settings import ModelSettings

# The batch that the plain loop takes: in arrival order, padded to its longest text.
PIPELINE_BATCH: Final = 32
_PROBE_TOKENS: Final = 16
_FLOATS: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Shape = tuple[int, int]  # in, out
Product = Callable[[], Any]


@dataclass(frozen=True)
class Arithmetic:
    """What a model multiplies, counted from its weights.

    Attributes:
        shapes: linears that see every token -> how many there are of that shape.
        per_text: weights of linears that see a text once, as its head does.
        attention: hidden size x layers; 0 where the config does not tell.
    """

    shapes: Mapping[Shape, int]
    per_text: int
    attention: int

    @property
    def per_token(self) -> int:
        """Weights of the linears that see every token."""
        return sum(width * out * count for (width, out), count in self.shapes.items())

    def flop(self, tokens: int) -> int:
        """FLOP of one text of so many tokens, a multiply-add counting as two.

        2*T*per_token + 2*per_text + 4*T*T*attention: attention multiplies queries with keys and
        weights with values, T*T*hidden multiply-adds each in every layer.
        """
        linears = 2 * tokens * self.per_token + 2 * self.per_text
        return linears + 4 * tokens * tokens * self.attention


def threads() -> int:
    """Threads that torch computes with."""
    return torch.get_num_threads()


class PlainPipeline:
    """`transformers.pipeline("text-classification")` in float32, as most loops around it run it."""

    def __init__(self, settings: ModelSettings, device: str, max_tokens: int) -> None:
        folder = str(resolve(settings).folder)
        self._options = {"batch_size": PIPELINE_BATCH, "truncation": True, "max_length": max_tokens}
        self._pipeline: Any = pipeline(
            "text-classification", model=folder, dtype=torch.float32, device=device
        )

    def label(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """The most probable label of each text, and its score."""
        found: list[dict[str, Any]] = self._pipeline(list(texts), **self._options)
        return found

    def arithmetic(self) -> Arithmetic:
        """Of the pipeline's model."""
        return arithmetic_of(self._pipeline.model)


def arithmetic_of(model: Any) -> Arithmetic:
    """Counted in one pass of a text of known length: which linears see all of it?

    Args:
        model: of transformers, for sequence classification, on its device.
    """
    ids = torch.ones((1, _PROBE_TOKENS), dtype=torch.long, device=model.device)
    rows: list[tuple[Shape, int]] = []
    with _linears_watched(model, rows), torch.inference_mode():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    config = model.config.get_text_config()
    hidden, layers = (
        getattr(config, name, None) or 0 for name in ("hidden_size", "num_hidden_layers")
    )
    return Arithmetic(
        shapes=Counter(shape for shape, seen in rows if seen == _PROBE_TOKENS),
        per_text=sum(shape[0] * shape[1] for shape, seen in rows if seen == 1),
        attention=hidden * layers,
    )


@contextmanager
def _linears_watched(model: nn.Module, rows: list[tuple[Shape, int]]) -> Iterator[None]:
    def note(linear: Any, given: tuple[Tensor, ...], _: Any) -> None:
        shape = (linear.in_features, linear.out_features)
        rows.append((shape, given[0].numel() // linear.in_features))

    linears = (module for module in model.modules() if isinstance(module, nn.Linear))
    handles = [linear.register_forward_hook(note) for linear in linears]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class MatrixProducts:
    """The products of one forward pass's linears and nothing else, each way that torch has.

    On a CPU with several threads that is: all threads in every product, or each in products of its
    share of the rows. Nothing is added, copied or looked up: an engine that multiplies by the same
    libraries in the same type can't be faster.

    Raises ValueError where torch multiplies no numbers of that type.
    """

    def __init__(self, arithmetic: Arithmetic, tokens: int, dtype: str, device: str) -> None:
        if dtype not in _FLOATS:
            raise ValueError(f"no plain matrix products in {dtype}")
        self._device = device
        self.flop = 2 * tokens * arithmetic.per_token

        def random(*shape: int) -> Tensor:
            return torch.rand(*shape).to(device, _FLOATS[dtype])

        at_once = torch.get_num_threads() if device == "cpu" else 1
        self._ways: dict[str, tuple[list[Product], int]] = {}
        for threads in sorted({1, at_once}):
            told = ", side by side" if threads > 1 else ""
            rows = {width: random(tokens // threads, width) for width, _ in arithmetic.shapes}
            shapes = Counter(arithmetic.shapes).elements()
            operands = [(rows[width], random(out, width)) for width, out in shapes]
            self._ways[f"torch.mm{told}"] = [_plain(*pair) for pair in operands], threads
            if device == "cpu":
                # A torch without oneDNN, or an older one, has not this way.
                with suppress(RuntimeError, AttributeError):
                    packed = [_packed(*pair) for pair in operands]
                    self._ways[f"oneDNN, prepacked{told}"] = packed, threads
        for products, _ in self._ways.values():
            products[0]()  # the first one of all prepares the library

    @property
    def ways(self) -> tuple[str, ...]:
        """Names of the ways that this machine has."""
        return tuple(self._ways)

    def seconds(self, way: str, clock: Clock) -> float:
        """Time of all products once."""
        products, threads = self._ways[way]
        begun = clock.monotonic()
        if threads == 1:
            _multiply(products)
        else:
            with ThreadPoolExecutor(threads, "", torch.set_num_threads, (1,)) as own:
                list(own.map(_multiply, [products] * threads))
        if self._device == "cuda":
            torch.cuda.synchronize()
        return clock.monotonic() - begun


def _multiply(products: Sequence[Product]) -> None:
    with torch.inference_mode():
        for product in products:
            product()


def _plain(rows: Tensor, weight: Tensor) -> Product:
    turned = weight.t()
    return lambda: torch.mm(rows, turned)


def _packed(rows: Tensor, weight: Tensor) -> Product:
    """As inductor calls oneDNN: the weight is laid out once for the processor's tiles."""
    ops: Any = torch.ops.mkldnn
    laid_out = ops._reorder_linear_weight(weight, rows.shape[0])  # noqa: SLF001
    return lambda: ops._linear_pointwise(rows, laid_out, None, "none", [], "")  # noqa: SLF001
