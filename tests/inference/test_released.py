"""A model that is no longer used frees its memory at once, without a collection of garbage."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.models import make_checkpoint
from worker.inference.loading import load
from worker.settings import ModelSettings


@pytest.fixture(autouse=True)
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


def used(folder: Path, **settings: Any) -> list[weakref.ref[Any]]:
    """Load a model and use it; return references to its parts and to its weights."""
    before = {id(one) for one in gc.get_objects() if type(one) is torch.nn.Parameter}
    model = ModelSettings(name=str(folder), device="cpu", **settings)
    tokeniser, classifier = load(model, 1024)
    for part in tokeniser.tokenise(["hello", "a longer text"]):
        assert classifier.predict(part)
    weights = [
        weakref.ref(one)
        for one in gc.get_objects()
        if type(one) is torch.nn.Parameter and id(one) not in before
    ]
    return [weakref.ref(tokeniser), weakref.ref(classifier.forward), *weights]


@pytest.mark.parametrize(
    ("architecture", "settings"),
    [
        ("distilbert", {"engine": "packed", "dtype": "float32"}),
        ("distilbert", {"engine": "packed", "dtype": "bfloat16"}),
        ("distilbert", {"engine": "padded", "dtype": "float32"}),
        ("modernbert", {"engine": "packed", "dtype": "float32"}),
        ("roberta", {"engine": "packed", "dtype": "float32", "lanes": 1}),
        ("gpt2", {"engine": "padded", "dtype": "float32"}),
    ],
)
def test_a_model_is_freed_with_its_last_reference(
    tmp_path: Path, architecture: Any, settings: dict[str, Any]
) -> None:
    """A cycle would keep the old model until the next full collection."""
    folder = make_checkpoint(tmp_path / "model", architecture=architecture)
    references = used(folder, **settings)
    assert [one for one in references if one() is not None] == []
