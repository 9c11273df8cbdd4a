"""`streamlabel check` tells what each model is, and what is on of its preparation and decision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.models import Architecture, make_checkpoint
from worker.cli.model_verdict import load_described
from worker.settings import load

pytestmark = pytest.mark.usefixtures("offline")


@pytest.fixture
def model(checkpoint: Callable[[Architecture], Path]) -> str:
    return str(checkpoint("distilbert"))


def test_one_model_is_described_with_the_features_that_are_on(model: str) -> None:
    values = {
        "model.name": model,
        "prepare.html": True,
        "decision.temperature": 1.5,
        "input.overflow": "windows",
        "input.stride": 8,
    }
    card, told, hints = load_described(load(values, environ={}).settings)
    assert told.startswith(
        f"{card.name} (local) has the labels NEGATIVE, POSITIVE; up to 64 tokens"
    )
    for words in ("long texts in windows", "texts prepared by ", "decision ", "MiB of memory"):
        assert words in told
    assert hints == []


def test_one_model_as_it_always_was(model: str) -> None:
    _, told, _ = load_described(load({"model.name": model}, environ={}).settings)
    assert "decision" not in told
    assert "prepared" not in told
    assert "; a process with it may need " in told


def test_each_of_several_models_is_described(model: str, tmp_path: Path) -> None:
    unnamed = make_checkpoint(tmp_path, labels=tuple(f"LABEL_{n}" for n in range(40)))
    models = {"mood": {"name": model}, "other": {"name": str(unnamed)}}
    card, told, hints = load_described(load({"models": models}, environ={}).settings)
    assert [name for name, _ in card.members] == ["mood", "other"]
    assert told.startswith("mood: ")
    assert "; other: " in told
    assert "and 10 more" in told
    assert "; a process with them may need " in told
    assert any("models.other.decision.labels" in hint for hint in hints)
