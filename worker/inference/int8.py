"""Linear layers that compute in 8-bit integers, on a CPU with instructions for them.

An input row x becomes bytes u = round(x / scale + shift), with a scale and a shift for each input
channel, from the ranges seen in a calibration. The weight takes in the scales, the bias takes in
the shifts, and the weight has a scale for each output. Scales are balanced between input and
weight as in SmoothQuant (Xiao et al., 2022, https://arxiv.org/abs/2211.10438, formula 4, alpha
0.5). No scale depends on the pass, so that a text's result does not depend on its neighbours.

In a feed-forward network the first product applies GELU and writes bytes, with one scale for all
neurons. The few neurons with the largest outputs, tens of times those of the others, are computed
apart in float32, as in LLM.int8() (Dettmers et al., 2022, https://arxiv.org/abs/2208.07339).

The operators are those that torch's compiler emits. They are not public: `supported` tries them.

Owns: the replacement of a model's linear layers, and the calibration.
Thread: infer, and its lanes; replaced and calibrated on the load thread.
Must not import: transformers.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from worker.inference.linears import PrepackedLinear

# Paths, from one parent, of a feed-forward network's first linear layer, its activation and its
# second layer: in BERT and its relatives, in DistilBERT, and in a layer that joins their steps.
_FEED_FORWARD = (
    ("intermediate.dense", "intermediate.intermediate_act_fn", "output.dense"),
    ("lin1", "activation", "lin2"),
    ("expand", "activation", "contract"),
)
_INSTRUCTIONS = ("amx_int8", "avx512_vnni", "avx_vnni")
# Neurons of a feed-forward network that are computed apart. On the bundled model, 4 to 32 give the
# same agreement, and none gives four times the flips.
_APART = 16
_ALPHA = 0.5  # of SmoothQuant
_ROWS = 512  # that the weight's layout is optimised for
_TINY = 1e-9
_NUMBERED = re.compile(r"\.\d+\.")  # of a path below a stack of layers


def supported() -> bool:
    """Return whether this processor and this release of torch have products of bytes.

    Without such instructions oneDNN computes them a thousand times slower.
    """
    get_capabilities: Any = getattr(torch.cpu, "get_capabilities", dict)
    capabilities = get_capabilities()
    if not any(capabilities.get(name) for name in _INSTRUCTIONS):
        return False
    plain = nn.Linear(32, 32)
    try:
        product = _Product(plain.weight, plain.bias, torch.ones(32), torch.zeros(32))
        product.of(torch.zeros(1, 32, dtype=torch.uint8))
    except (AttributeError, RuntimeError):
        return False
    return True


class _Range:
    """The least and largest value of each channel, over all rows seen."""

    def __init__(self) -> None:
        self.least = self.most = torch.empty(0)

    def see(self, rows: Tensor) -> None:
        """Take in rows [..., channels]."""
        flat = rows.flatten(0, -2)
        least, most = flat.amin(0), flat.amax(0)
        if len(self.least):
            least, most = torch.minimum(self.least, least), torch.maximum(self.most, most)
        self.least, self.most = least, most


class _Product:
    """A product of bytes [..., inputs] with a weight [outputs, inputs], in oneDNN's layout.

    Args:
        weight: float32.
        bias: float32, or None.
        scale: of each input.
        shift: byte that stands for 0, of each input; need not be whole.
        into: scale and shift of the bytes to write after GELU; None for float32 without GELU.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        scale: Tensor,
        shift: Tensor,
        into: tuple[float, int] | None = None,
    ) -> None:
        operators: Any = torch.ops.onednn
        scaled = weight.detach() * scale
        self._scales = scaled.abs().amax(1).clamp_min(_TINY) / 127
        whole = (scaled / self._scales[:, None]).round()
        self._bias = -(whole @ shift) * self._scales
        if bias is not None:
            self._bias += bias.detach()
        self._weight = operators.qlinear_prepack(whole.to(torch.int8), [_ROWS, weight.shape[1]])
        self._zeros = torch.zeros(len(weight), dtype=torch.int32)
        self._apply = operators.qlinear_pointwise
        self._written: tuple[Any, ...] = (
            (1.0, 0, torch.float32, "none", [], "")
            if into is None
            else (*into, torch.uint8, "gelu", [], "none")
        )

    def of(self, rows: Tensor) -> Tensor:
        """Return [..., outputs], float32 or bytes."""
        product: Tensor = self._apply(
            rows, 1.0, 0, self._weight, self._scales, self._zeros, self._bias, *self._written
        )
        return product


class _ByteInput:
    """Turns float32 rows into bytes, by scales that suit their range and the weight."""

    def __init__(self, seen: _Range, weight: Tensor) -> None:
        middle = (seen.least + seen.most) / 2
        half = ((seen.most - seen.least) / 2).clamp_min(_TINY)
        largest = weight.detach().abs().amax(0).clamp_min(_TINY)
        balanced = half**_ALPHA / largest ** (1 - _ALPHA)
        self.scale = balanced * (half / balanced).max() / 127.5
        self.shift = 127.5 - middle / self.scale
        # Conversion to whole numbers cuts off what follows the point.
        self._factor, self._add = 1 / self.scale, self.shift + 0.5

    def of(self, rows: Tensor) -> Tensor:
        """Return bytes of the same shape; values beyond the range become the nearest byte."""
        # Each step is vectorised; a float's direct conversion to a byte is not, and takes longer.
        scaled = torch.addcmul(self._add, rows, self._factor).clamp_(0, 255)
        return scaled.to(torch.int32).to(torch.uint8)


class Int8Layer(nn.Module):
    """A linear layer, or two with GELU between them, that can change its number type.

    It computes in float32 at first, and notes the ranges that it sees until it is quantised.

    Args:
        first: the layer.
        second: the layer after GELU, if it is a feed-forward network.
    """

    def __init__(self, first: nn.Linear, second: nn.Linear | None = None) -> None:
        super().__init__()
        self.first: nn.Linear | None = first
        self.second = second
        self._ranges, self._observes = (_Range(), _Range()), True
        self._run: Callable[[Tensor], Tensor] | None = None

    def forward(self, rows: Tensor) -> Tensor:
        """Compute [..., outputs] of [..., inputs], float32."""
        if self._run is not None:
            return self._run(rows)
        assert self.first is not None  # noqa: S101 - for mypy: settled layers have `_run`
        output: Tensor = self.first(rows)
        if self._observes:
            self._ranges[0].see(rows)
        if self.second is None:
            return output
        output = gelu(output)
        if self._observes:
            self._ranges[1].see(output)
        result: Tensor = self.second(output)
        return result

    @property
    def calibrated(self) -> bool:
        """True once a pass has run this layer."""
        return len(self._ranges[0].least) > 0

    def quantise(self) -> None:
        """Compute in 8-bit integers from now on."""
        assert self.first is not None  # noqa: S101 - for mypy
        self._observes = False
        if self.second is None:
            self._run = _Linear(self.first, self._ranges[0])
        else:
            self._run = _FeedForward(self.first, self.second, *self._ranges)

    def release(self, dtype: torch.dtype) -> None:
        """Compute in `dtype` from now on: float32 or bfloat16."""
        self._run = None
        if dtype is torch.bfloat16:
            self._run = _Bfloat16(self.first, self.second)

    @contextmanager
    def released(self) -> Iterator[None]:
        """Compute in float32 within the context."""
        run, self._run = self._run, None
        try:
            yield
        finally:
            self._run = run

    def settle(self) -> None:
        """Free the float32 weights that are no longer used."""
        if self._run is not None:
            self.first = self.second = None


class _Linear:
    def __init__(self, layer: nn.Linear, seen: _Range) -> None:
        self._bytes = _ByteInput(seen, layer.weight)
        self._product = _Product(layer.weight, layer.bias, self._bytes.scale, self._bytes.shift)

    def __call__(self, rows: Tensor) -> Tensor:
        return self._product.of(self._bytes.of(rows))


class _FeedForward:
    def __init__(self, first: nn.Linear, second: nn.Linear, seen: _Range, between: _Range) -> None:
        apart = between.most.topk(min(_APART, len(between.most))).indices
        others = torch.ones(len(between.most))
        others[apart] = 0
        # GELU's least value is -0.17.
        least = min(0.0, float(between.least.min()))
        scale = max((float((between.most * others).max()) - least) / 255, _TINY)
        zero = round(-least / scale)
        self._bytes = _ByteInput(seen, first.weight)
        self._expand = _Product(
            first.weight, first.bias, self._bytes.scale, self._bytes.shift, into=(scale, zero)
        )
        self._contract = _Product(
            second.weight * others,
            second.bias,
            torch.full_like(others, scale),
            torch.full_like(others, float(zero)),
        )
        self._into = first.weight[apart].clone()
        self._bias = None if first.bias is None else first.bias[apart].clone()
        self._out = second.weight[:, apart].clone()

    def __call__(self, rows: Tensor) -> Tensor:
        result = self._contract.of(self._expand.of(self._bytes.of(rows)))
        return result.add_(linear(gelu(linear(rows, self._into, self._bias)), self._out))


class _Bfloat16:
    def __init__(self, first: nn.Linear | None, second: nn.Linear | None) -> None:
        layers = [copy.deepcopy(layer).bfloat16() for layer in (first, second) if layer]
        activations = ["gelu", "none"][-len(layers) :]
        self._layers = [
            PrepackedLinear(layer, then) for layer, then in zip(layers, activations, strict=True)
        ]

    def __call__(self, rows: Tensor) -> Tensor:
        rows = rows.bfloat16()
        for layer in self._layers:
            rows = layer(rows)
        return rows.float()


def wrap(model: nn.Module) -> dict[str, Int8Layer]:
    """Replace the linear layers of a model's numbered layers; return the replacements by name.

    The head's layers, which run once a text, stay.
    """
    wrapped: dict[str, Int8Layer] = {}
    for name, parent in list(model.named_modules()):
        for paths in _FEED_FORWARD:
            _wrap_feed_forward(parent, name, paths, wrapped)
    for name, parent in list(model.named_modules()):
        if _NUMBERED.search(f"{name}.") and not isinstance(parent, Int8Layer):
            for own, child in list(parent.named_children()):
                if type(child) is nn.Linear:
                    wrapped[f"{name}.{own}"] = layer = Int8Layer(child)
                    setattr(parent, own, layer)
    return wrapped


def _wrap_feed_forward(
    parent: nn.Module, name: str, paths: tuple[str, str, str], wrapped: dict[str, Int8Layer]
) -> None:
    try:
        first, activation, second = (parent.get_submodule(path) for path in paths)
    except AttributeError:
        return
    # Recognised by its function: transformers has a dozen GELUs, most of them approximate.
    exact = getattr(activation, "act", None) is nn.functional.gelu
    if exact and type(first) is nn.Linear and type(second) is nn.Linear:
        layer = wrapped[f"{name}.{paths[2]}"] = Int8Layer(first, second)
        for path, module in zip(paths, (nn.Identity(), nn.Identity(), layer), strict=True):
            owner, _, own = path.rpartition(".")
            setattr(parent.get_submodule(owner), own, module)
