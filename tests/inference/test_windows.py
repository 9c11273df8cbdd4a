"""Long texts read in windows have the probabilities of a plain loop of transformers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.models import Architecture
from worker.core.budget import ForwardBudget
from worker.core.decisions.treatment import Treatment
from worker.core.decisions.windows import WindowPlan
from worker.core.model import no_step
from worker.core.records import Prediction
from worker.inference.loading import load
from worker.metrics import Metrics
from worker.runtime.forward import ForwardPasses, tokenise
from worker.settings import ModelSettings

MAX_TOKENS = 24


@pytest.fixture(scope="module")
def loaded(checkpoint: Callable[..., Path]) -> Callable[[Architecture], Any]:
    @cache
    def model(architecture: Architecture) -> Any:
        directory = checkpoint(architecture)
        plain = AutoModelForSequenceClassification.from_pretrained(directory).eval()
        options = ModelSettings(
            name=str(directory), max_tokens=MAX_TOKENS, device="cpu", dtype="float32"
        )
        tokeniser, classifier = load(
            options, 4096, treatment=Treatment(windows=WindowPlan(0, 1, "mean"))
        )
        return AutoTokenizer.from_pretrained(directory), plain, tokeniser, classifier

    return model


def by_a_plain_loop(tokenizer: Any, model: Any, text: str, plan: WindowPlan) -> Any:
    windows = tokenizer(
        text,
        truncation=True,
        max_length=MAX_TOKENS,
        stride=plan.stride,
        return_overflowing_tokens=True,
    )["input_ids"][: plan.max_windows]
    with torch.inference_mode():
        rows = torch.cat(
            [torch.softmax(model(torch.tensor([ids])).logits.float(), -1) for ids in windows]
        )
    if plan.combine == "first":
        return rows[0]
    if plan.combine == "max":
        highest = rows.max(0).values
        return highest / highest.sum()
    if plan.combine == "mean":
        return rows.mean(0)
    weights = torch.tensor([float(len(ids)) for ids in windows])
    return (weights[:, None] * rows).sum(0) / weights.sum()


@pytest.mark.parametrize("architecture", ["distilbert", "roberta", "gpt2", "modernbert"])
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    words=st.lists(
        st.sampled_from(["good", "bad", "the", "room", "é", "!", "unusual"]),
        min_size=1,
        max_size=120,
    ),
    plan=st.builds(
        WindowPlan,
        st.integers(0, 20),
        st.integers(1, 30),
        st.sampled_from(["mean", "max", "first", "length_weighted"]),
    ),
)
def test_any_length_stride_and_combination_equals_a_plain_loop(
    loaded: Callable[[Architecture], Any],
    architecture: Architecture,
    words: list[str],
    plan: WindowPlan,
) -> None:
    tokenizer, plain, tokeniser, classifier = loaded(architecture)
    text = " ".join(words)
    tokeniser.windows = plan
    classifier.card = replace(classifier.card, windows=plan)
    (model_input,), failed = tokenise(tokeniser, [text, "Hi"], no_step)
    assert not failed
    passes = ForwardPasses(classifier, ForwardBudget(100, pads=False), Metrics())
    result = dict(passes.run(model_input, no_step))[0]
    assert isinstance(result, Prediction)
    assert result.probabilities == pytest.approx(
        by_a_plain_loop(tokenizer, plain, text, plan).tolist(), abs=2e-5
    )
    whole = len(tokenizer(text)["input_ids"])
    assert result.total_tokens == whole
    if plan.combine == "first":
        assert result.windows == 1
    assert result.truncated == (result.token_count < whole)
