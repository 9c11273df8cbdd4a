"""The baselines of an engine: transformers' own `pipeline()`, and bare matrix products.

Owns: both baselines, and the count of a model's arithmetic.
Thread: main, in the process that measures the engine.
Must not import: kafka.
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

# Texts of one `pipeline()` batch: in arrival order, padded to the longest.
PIPELINE_BATCH: Final = 32
_PROBE_TOKENS: Final = 16
_INT8: Final = "int8"
_ZERO: Final = 128  # the zero of uint8 activations, which oneDNN multiplies by int8 weights
_FLOATS: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}

Shape = tuple[int, int]  # in, out
Product = Callable[[], Any]


@dataclass(frozen=True)
class Arithmetic:
    """The multiplications of a model, counted from its weights.

    Attributes:
        shapes: shape of the linears that process every token -> number of linears of that shape.
        per_text: weights of the linears that process a text once, such as its head.
        attention: hidden size x layers; 0 if the config does not have them.
    """

    shapes: Mapping[Shape, int]
    per_text: int
    attention: int

    @property
    def per_token(self) -> int:
        """Weights of the linears that process every token."""
        return sum(width * out * count for (width, out), count in self.shapes.items())

    def flop(self, tokens: int) -> int:
        """Return the FLOP of one text of `tokens` tokens; a multiply-add counts as two.

        2*T*per_token + 2*per_text + 4*T*T*attention: attention multiplies queries by keys and
        weights by values, T*T*hidden multiply-adds each in every layer.
        """
        linears = 2 * tokens * self.per_token + 2 * self.per_text
        return linears + 4 * tokens * tokens * self.attention


def threads() -> int:
    """Return the number of threads that torch computes with."""
    return torch.get_num_threads()


class PlainPipeline:
    """`transformers.pipeline("text-classification")` in float32, as most programs use it."""

    def __init__(self, settings: ModelSettings, device: str, max_tokens: int) -> None:
        folder = str(resolve(settings).folder)
        self._options = {"batch_size": PIPELINE_BATCH, "truncation": True, "max_length": max_tokens}
        self._pipeline: Any = pipeline(
            "text-classification", model=folder, dtype=torch.float32, device=device
        )

    def label(self, texts: Sequence[str]) -> list[dict[str, Any]]:
        """Return the most probable label of each text, and its score."""
        labels: list[dict[str, Any]] = self._pipeline(list(texts), **self._options)
        return labels

    def arithmetic(self) -> Arithmetic:
        """Return the arithmetic of the pipeline's model."""
        return arithmetic_of(self._pipeline.model)


def arithmetic_of(model: Any) -> Arithmetic:
    """Count a model's arithmetic with one pass of a text of known length.

    Args:
        model: a transformers model for sequence classification, on its device.
    """
    ids = torch.ones((1, _PROBE_TOKENS), dtype=torch.long, device=model.device)
    rows: list[tuple[Shape, int]] = []
    with _recording_linears(model, rows), torch.inference_mode():
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    config = model.config.get_text_config()
    hidden, layers = (
        getattr(config, name, None) or 0 for name in ("hidden_size", "num_hidden_layers")
    )
    return Arithmetic(
        shapes=Counter(shape for shape, count in rows if count == _PROBE_TOKENS),
        per_text=sum(shape[0] * shape[1] for shape, count in rows if count == 1),
        attention=hidden * layers,
    )


@contextmanager
def _recording_linears(model: nn.Module, rows: list[tuple[Shape, int]]) -> Iterator[None]:
    """Record the shape of every linear that runs, and how many rows it multiplies."""

    def record(linear: Any, inputs: tuple[Tensor, ...], _: Any) -> None:
        shape = (linear.in_features, linear.out_features)
        rows.append((shape, inputs[0].numel() // linear.in_features))

    linears = (module for module in model.modules() if isinstance(module, nn.Linear))
    handles = [linear.register_forward_hook(record) for linear in linears]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class MatrixProducts:
    """The bare matrix products of one forward pass's linears, in every way that torch offers.

    On a CPU with several threads, either all threads share each product, or each thread computes
    products of its own share of the rows. The products do no additions, copies or lookups, so an
    engine that uses the same libraries and number type can't be faster.

    Raises ValueError if torch has no products of that number type.
    """

    def __init__(self, arithmetic: Arithmetic, tokens: int, dtype: str, device: str) -> None:
        if dtype not in _FLOATS and (dtype, device) != (_INT8, "cpu"):
            raise ValueError(f"no plain matrix products in {dtype} on {device}")
        self._device = device
        self.flop = 2 * tokens * arithmetic.per_token

        def random(*shape: int) -> Tensor:
            if dtype == _INT8:
                return torch.randint(-127, 128, shape, dtype=torch.int8)
            return torch.rand(*shape).to(device, _FLOATS[dtype])

        at_once = torch.get_num_threads() if device == "cpu" else 1
        self._ways: dict[str, tuple[list[Product], int]] = {}
        for threads in sorted({1, at_once}):
            suffix = ", side by side" if threads > 1 else ""
            rows = {width: random(tokens // threads, width) for width, _ in arithmetic.shapes}
            shapes = Counter(arithmetic.shapes).elements()
            operands = [(rows[width], random(out, width)) for width, out in shapes]
            for way, make in _makers(dtype, device).items():
                # A torch without oneDNN, and an older torch, lack some.
                with suppress(RuntimeError, AttributeError):
                    products = [make(*pair) for pair in operands]
                    products[0]()  # the first product initialises the library
                    self._ways[way + suffix] = products, threads
        if not self._ways:
            raise ValueError(f"this torch has no matrix products in {dtype} on {device}")

    @property
    def ways(self) -> tuple[str, ...]:
        """Names of the ways to multiply that this machine has."""
        return tuple(self._ways)

    def seconds(self, way: str, clock: Clock) -> float:
        """Return the seconds for computing all products once."""
        products, threads = self._ways[way]
        started = clock.monotonic()
        if threads == 1:
            _multiply(products)
        else:
            with ThreadPoolExecutor(threads, "", torch.set_num_threads, (1,)) as pool:
                list(pool.map(_multiply, [products] * threads))
        if self._device == "cuda":
            torch.cuda.synchronize()
        return clock.monotonic() - started


def _multiply(products: Sequence[Product]) -> None:
    with torch.inference_mode():
        for product in products:
            product()


def _makers(dtype: str, device: str) -> Mapping[str, Callable[[Tensor, Tensor], Product]]:
    """Return the ways to multiply rows by the transpose of a weight."""
    if dtype == _INT8:
        return {"torch._int_mm": _int_plain, "oneDNN int8, prepacked": _int_packed}
    plain = {"torch.mm": _plain}
    return plain | {"oneDNN, prepacked": _packed} if device == "cpu" else plain


def _plain(rows: Tensor, weight: Tensor) -> Product:
    transposed = weight.t()
    return lambda: torch.mm(rows, transposed)


def _packed(rows: Tensor, weight: Tensor) -> Product:
    """Return a oneDNN product, called as inductor does: the weight is packed in advance."""
    ops: Any = torch.ops.mkldnn
    packed = ops._reorder_linear_weight(weight, rows.shape[0])  # noqa: SLF001
    return lambda: ops._linear_pointwise(rows, packed, None, "none", [], "")  # noqa: SLF001


def _int_plain(rows: Tensor, weight: Tensor) -> Product:
    multiply: Any = torch._int_mm  # noqa: SLF001
    transposed = weight.t()
    return lambda: multiply(rows, transposed)


def _int_packed(rows: Tensor, weight: Tensor) -> Product:
    """Return a oneDNN product of uint8 rows and int8 weights, with bfloat16 results."""
    ops: Any = torch.ops.onednn
    packed = ops.qlinear_prepack(weight, list(rows.shape))
    out = weight.shape[0]
    scales, zeros = torch.ones(out), torch.zeros(out, dtype=torch.int64)
    unsigned = rows.view(torch.uint8)
    weights = (packed, scales, zeros, None)
    rest: tuple[Any, ...] = (1.0, 0, torch.bfloat16, "none", [], "")
    return lambda: ops.qlinear_pointwise(unsigned, 1.0, _ZERO, *weights, *rest)
