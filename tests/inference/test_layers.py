"""Layers with joined steps: the results of transformers' own, before and after prepacking."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForSequenceClassification

from tests.support.models import Architecture
from worker.inference.classifier import scores
from worker.inference.layers import JoinedLayer
from worker.inference.linears import PrepackedLinear, prepack
from worker.inference.packing import PackedForward

pytestmark = pytest.mark.usefixtures("offline")

JOINED: tuple[Architecture, ...] = ("distilbert", "bert", "electra", "roberta", "xlm-roberta")
ROWS = [tuple(range(2, 42)), tuple(range(5, 25)), tuple(range(7, 27)), (3,)]


def model_in(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def alone(model: Any) -> torch.Tensor:
    """Return the probabilities of the library's own forward pass, one text at a time."""
    with torch.inference_mode():
        logits = [model(input_ids=torch.tensor([row])).logits for row in ROWS]
    return torch.cat(logits).softmax(-1)


@pytest.mark.parametrize("architecture", JOINED)
def test_joined_layers_give_the_same_results(
    checkpoint: Callable[[Architecture], Path], architecture: Architecture
) -> None:
    model = model_in(checkpoint(architecture))
    expected = alone(model)
    packed = PackedForward(model)
    assert any(isinstance(module, JoinedLayer) for module in model.modules())
    torch.testing.assert_close(scores(packed, ROWS, "softmax"), expected, atol=1e-5, rtol=0)


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch without oneDNN")
def test_prepacked_the_residual_is_added_within_the_product(
    checkpoint: Callable[[Architecture], Path],
) -> None:
    model = model_in(checkpoint("bert"))
    expected = alone(model)
    packed = PackedForward(model)
    assert prepack(model)
    (layer, *_) = (module for module in model.modules() if isinstance(module, JoinedLayer))
    products = (layer.projections, layer.output, layer.expand, layer.contract)
    assert all(isinstance(product, PrepackedLinear) for product in products)
    assert isinstance(layer.activation, nn.Identity)
    torch.testing.assert_close(scores(packed, ROWS, "softmax"), expected, atol=1e-4, rtol=0)


def _rename(model: Any) -> None:
    """Hide a module, as a release of transformers that renames it would."""
    for layer in model.base_model.encoder.layer:
        layer.intermediate.intermediate_act = layer.intermediate.intermediate_act_fn
        forward = layer.intermediate
        del layer.intermediate.intermediate_act_fn
        forward.forward = lambda rows, own=forward: own.intermediate_act(own.dense(rows))


def _without_bias(model: Any) -> None:
    for layer in model.base_model.encoder.layer:
        layer.attention.self.key.bias = None


@pytest.mark.parametrize("change", [_rename, _without_bias])
def test_layers_of_another_build_stay_as_they_are(
    checkpoint: Callable[[Architecture], Path], change: Callable[[Any], None]
) -> None:
    model = model_in(checkpoint("bert"))
    change(model)
    expected = alone(model)
    packed = PackedForward(model)
    assert not any(isinstance(module, JoinedLayer) for module in model.modules())
    torch.testing.assert_close(scores(packed, ROWS, "softmax"), expected, atol=1e-5, rtol=0)
