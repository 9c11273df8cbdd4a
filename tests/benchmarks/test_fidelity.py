"""The figures of fidelity: near nothing in float32, bounded in bfloat16, and a refusal said as one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.fidelity import measure
from tests.support.models import Architecture
from worker.inference.self_check import TEXTS
from worker.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("offline")
ARRIVING = TEXTS * 6  # more than a micro-batch, short and long ones mixed


def test_float32_is_exact_and_bfloat16_near(
    checkpoint: Callable[[Architecture], Path],
) -> None:
    found = measure(ModelSettings(name=str(checkpoint("distilbert"))), ARRIVING)
    assert found["texts"] == len(ARRIVING)
    for way in found["ways"]:
        exact = way["dtype"] == "float32"
        assert way["max_difference"] <= (1e-5 if exact else 0.03), way
        assert way["agreement"] >= (1.0 if exact else 0.95), way


def test_an_engine_that_cannot_serve_says_why(
    checkpoint: Callable[[Architecture], Path],
) -> None:
    settings = ModelSettings(name=str(checkpoint("gpt2")))
    (way,) = measure(settings, ARRIVING, [("packed", "float32")])["ways"]
    assert "GPT2ForSequenceClassification" in way["refused"]
