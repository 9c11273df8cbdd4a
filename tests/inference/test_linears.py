"""Prepacked linear layers: the same numbers as plain ones, with fewer copies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from tests.support.models import Architecture, make_checkpoint
from worker.clock import SystemClock
from worker.inference.linears import PrepackedLinear, gains, prepack

pytestmark = [
    pytest.mark.usefixtures("offline"),
    pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN"),
]
IDS = torch.arange(2, 42)[None]


def model_in(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


@torch.inference_mode()
def logits(model: Any) -> torch.Tensor:
    output: torch.Tensor = model(IDS).logits
    return output


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 7, 300])
def test_a_layer_equals_torchs(bias: bool, rows: int) -> None:
    linear = nn.Linear(48, 20, bias=bias)
    inputs = torch.randn(1, rows, 48)
    with torch.inference_mode():
        plain, gelu = linear(inputs), nn.functional.gelu(linear(inputs))
        torch.testing.assert_close(PrepackedLinear(linear)(inputs), plain, atol=1e-5, rtol=1e-5)
        fused = PrepackedLinear(linear, "gelu")(inputs)
    torch.testing.assert_close(fused, gelu, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", [a for a in get_args(Architecture) if a != "gpt2"])
def test_a_model_gives_the_same_results(
    checkpoint: Callable[[Architecture], Path], architecture: Architecture
) -> None:
    model = model_in(checkpoint(architecture))
    before = logits(model)
    assert prepack(model)
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(logits(model.to("cpu").float()), before, atol=1e-4, rtol=1e-4)


class Ticks(SystemClock):
    """Time that passes only between two readings: `plain` seconds at first, then `prepacked`."""

    def __init__(self, plain: float, prepacked: float) -> None:
        self._durations = iter([plain] * 3 + [prepacked] * 3)
        self._now, self._running = 0.0, False

    def monotonic(self) -> float:
        if self._running:
            self._now += next(self._durations)
        self._running = not self._running
        return self._now


@pytest.mark.parametrize(("plain", "prepacked", "worth"), [(2.4, 1.0, True), (1.1, 1.0, False)])
def test_float32_is_prepacked_where_that_is_faster(
    plain: float, prepacked: float, worth: bool
) -> None:
    """MKL is slow on AMD, and as fast as oneDNN on Intel."""
    assert gains(nn.Sequential(nn.Linear(48, 20)), Ticks(plain, prepacked)) is worth


def test_a_model_without_linear_layers_gains_nothing() -> None:
    assert not gains(nn.Sequential(nn.Identity()), SystemClock())


@pytest.mark.parametrize(("activation", "fused"), [("gelu", 1), ("gelu_new", 0), ("relu", 0)])
def test_only_the_exact_gelu_is_fused(tmp_path: Path, activation: str, fused: int) -> None:
    model = model_in(make_checkpoint(tmp_path, architecture="bert", hidden_act=activation))
    before = logits(model)
    assert prepack(model)
    assert sum(isinstance(module, nn.Identity) for module in model.modules()) == fused
    torch.testing.assert_close(logits(model), before, atol=1e-4, rtol=1e-4)


def test_the_weights_are_stored_once(checkpoint: Callable[[Architecture], Path]) -> None:
    model = model_in(checkpoint("distilbert"))
    assert prepack(model)
    assert all("lin" not in name for name, _ in model.named_parameters())


def test_without_the_kernels_the_layers_are_not_replaced(
    checkpoint: Callable[[Architecture], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(*_: object) -> None:
        raise RuntimeError("bf16 path needs the cpu support")

    monkeypatch.setattr(PrepackedLinear, "forward", missing)
    model = model_in(checkpoint("distilbert"))
    assert not prepack(model)
    assert any(isinstance(module, nn.Linear) for module in model.modules())
