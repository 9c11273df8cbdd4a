"""Fidelity: exact in float32, within a tolerance in bfloat16, and a refusal has its reason."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
import pytest

from benchmarks.fidelity import measure
from tests.support.models import make_checkpoint
from worker.inference.self_check import TEXTS
from worker.settings import ModelSettings

MANY_TEXTS = TEXTS * 6  # more than a micro-batch, short and long ones mixed


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def test_float32_is_exact_and_bfloat16_is_close(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "distilbert", architecture="distilbert")
    result = measure(ModelSettings(name=str(folder)), MANY_TEXTS)
    assert result["texts"] == len(MANY_TEXTS)
    for way in result["ways"]:
        exact = way["dtype"] == "float32"
        if way["dtype"] != "int8":
            assert way["max_difference"] <= (1e-5 if exact else 0.03), way
        assert way.get("refused") or way["agreement"] >= (1.0 if exact else 0.95), way
        assert way.get("refused") or way["mean_difference"] <= way["max_difference"]


def test_a_refused_engine_has_its_reason(tmp_path: Path) -> None:
    settings = ModelSettings(name=str(make_checkpoint(tmp_path / "gpt2", architecture="gpt2")))
    (way,) = measure(settings, MANY_TEXTS, [("packed", "float32")])["ways"]
    assert "GPT2ForSequenceClassification" in way["refused"]
