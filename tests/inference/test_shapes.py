"""Few sizes reach the layers of a model if each size costs memory."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from tests.support.models import Architecture, Special, make_checkpoint
from worker.core.budget import ForwardBudget
from worker.core.model import Classifier
from worker.inference import shapes
from worker.inference.linears import PrepackedLinear
from worker.inference.loading import load
from worker.inference.shapes import cost_memory, round_up
from worker.inference.tokeniser import TransformersTokeniser
from worker.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("offline")

BATCHES = 100


@given(size=st.integers(1, 100_000), step=st.sampled_from([1, 8, 16, 32]))
def test_a_size_grows_by_less_than_a_step_or_an_eighth(size: int, step: int) -> None:
    rounded = round_up(size, step)
    assert rounded % step == 0
    assert 0 <= rounded - size < max(step, size / 8)
    assert round_up(rounded, step) == rounded


def test_there_are_few_sizes() -> None:
    assert len({round_up(size, 32) for size in range(1, 513)}) == 16
    assert len({round_up(size, 32) for size in range(1, 4_097)}) == 40


@pytest.mark.parametrize(
    ("dtype", "machine", "costs"),
    [
        (torch.bfloat16, "x86_64", True),
        (torch.float32, "x86_64", False),
        (torch.float32, "AMD64", False),
        (torch.float32, "aarch64", True),
    ],
)
def test_a_new_size_costs_memory_by_type_and_device(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, machine: str, costs: bool
) -> None:
    monkeypatch.setattr(shapes.platform, "machine", lambda: machine)
    assert cost_memory(nn.Linear(1, 1, dtype=dtype)) is costs


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore the number of threads, which applies to the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize(
    ("architecture", "engine", "lanes", "most"),
    [
        # The layers up to the last attention have a row for each token, later ones for each text.
        ("distilbert", "packed", 1, 40),
        ("distilbert", "packed", 2, 24),
        # The sizes of rectangles are products of rounded numbers, and many are equal.
        ("distilbert", "padded", 1, 80),
    ],
)
def test_few_numbers_of_rows_reach_a_linear_layer(
    tmp_path: Path, architecture: Architecture | Special, engine: Any, lanes: int, most: int
) -> None:
    folder = make_checkpoint(tmp_path / "model", architecture=architecture)
    settings = ModelSettings(
        name=str(folder), engine=engine, dtype="bfloat16", device="cpu", lanes=lanes, threads=lanes
    )
    tokeniser, classifier = load(settings, 4096)
    assert classifier.card.engine == engine
    seen = _watched(classifier)
    passes = list(_batches(tokeniser, classifier))
    rows = {size for sizes in seen.values() for size in sizes}
    assert len(rows) <= most, sorted(rows)
    assert len(set(passes)) > BATCHES / 2 > len(next(iter(seen.values()))) / 2


def _watched(classifier: Classifier) -> dict[nn.Module, set[int]]:
    """Record the numbers of rows that reach each layer, from now on."""
    forward: Any = classifier.forward  # type: ignore[attr-defined]
    model: nn.Module = getattr(forward, "_forward", forward)._model  # lanes wrap a pass
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.Linear | PrepackedLinear) or type(layer).__name__ == "Conv1D"
    ]
    assert layers
    seen: dict[nn.Module, set[int]] = {layer: set() for layer in layers}
    for layer in layers:
        layer.register_forward_hook(
            lambda layer, inputs, _: seen[layer].add(inputs[0].shape[:-1].numel())
        )
    return seen


def _batches(tokeniser: TransformersTokeniser, classifier: Classifier) -> Iterator[tuple[int, int]]:
    """Label random batches, and yield texts and tokens of each pass."""
    generator, words = random.Random(0), ["rain", "on", "a", "wonderful", "train"]
    budget = ForwardBudget(classifier.card.forward_tokens, pads=classifier.card.pads)
    for _ in range(BATCHES):
        texts = [
            " ".join(generator.choices(words, k=generator.randint(1, 60)))
            for _ in range(generator.randint(1, 60))
        ]
        for whole in tokeniser.tokenise(texts):
            for part in budget.cut(whole):
                assert len(classifier.predict(part)) == len(part.ids)
                yield len(part.ids), part.tokens


def test_rounding_a_pass_up_changes_no_result(
    checkpoint: Callable[[Architecture], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float32, which shows small differences, with a text of the longest length."""
    monkeypatch.setattr(shapes, "cost_memory", lambda _: True)
    texts = [" ".join(["rain"] * count) for count in (100, 1, 7, 30, 2)]
    for architecture, engine in (("roberta", "packed"), ("bert", "packed"), ("bert", "padded")):
        name = str(checkpoint(architecture))  # type: ignore[arg-type]
        chosen = ModelSettings(name=name, engine=engine, dtype="float32", device="cpu", lanes=1)  # type: ignore[arg-type]
        tokeniser, classifier = load(chosen, 4096)
        assert classifier.card.engine == engine
        (whole,) = tokeniser.tokenise(texts)
        together = classifier.predict(whole)
        for row, among in enumerate(together):
            (alone,) = classifier.predict(whole.take([row]))
            assert among.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
