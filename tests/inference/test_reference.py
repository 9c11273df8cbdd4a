"""A published example: each part of it, and all of it if the checkpoint is available.

The checkpoint is `distilbert-base-uncased-finetuned-sst-2-english`. The parts need no download: the
vocabulary is BERT's, the shapes are those of any DistilBERT, the softmax starts from the published
logits.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
)

from tests.support.models import bert_tokenizer, make_checkpoint
from worker.inference.checkpoint import resolve
from worker.inference.classifier import probabilities
from worker.inference.loading import load
from worker.inference.tokeniser import TransformersTokeniser
from worker.settings import REFERENCE_MODEL, ModelSettings

TEXTS = [
    "I've been waiting for a HuggingFace course my whole life.",
    "I hate this so much!",
]
IDS = [
    [101, 1045, 1005, 2310, 2042, 3403, 2005, 1037, 17662, 12172, 2607, 2026, 2878, 2166, 1012, 102],
    [101, 1045, 5223, 2023, 2061, 2172, 999, 102, 0, 0, 0, 0, 0, 0, 0, 0],
]  # fmt: skip
MASK = [[1] * 16, [1] * 8 + [0] * 8]
LOGITS = [[-1.5607, 1.6123], [4.1692, -3.3464]]
PROBABILITIES = [[4.0195e-02, 9.5980e-01], [9.9946e-01, 5.4418e-04]]
ID2LABEL = {0: "NEGATIVE", 1: "POSITIVE"}

# The published logits and probabilities have five digits.
LOGIT_ERROR = 1e-4
PROBABILITY_ERROR = 1e-4

VARIABLE = "STREAMLABEL_REFERENCE_MODEL"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(bert_tokenizer())


@pytest.fixture(scope="module")
def random_model() -> Any:
    """Return a DistilBERT of the real size: 6 layers, 768 wide, 66 million random weights."""
    config = DistilBertConfig(id2label=ID2LABEL, label2id={v: k for k, v in ID2LABEL.items()})
    assert (config.n_layers, config.dim, config.vocab_size) == (6, 768, 30_522)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DistilBertForSequenceClassification(config).eval()


@pytest.fixture(scope="module")
def reference() -> ModelSettings:
    name = os.environ.get(VARIABLE)
    if not name:
        pytest.skip(f"{VARIABLE} names no directory or hub id of {REFERENCE_MODEL}")
    return ModelSettings(name=name, device="cpu", dtype="float32")


def test_ids_and_mask(tokenizer: Any) -> None:
    encoded = tokenizer(TEXTS, padding=True, truncation=True, return_tensors="pt")
    assert encoded["input_ids"].tolist() == IDS
    assert encoded["attention_mask"].tolist() == MASK


def test_ids_of_our_tokeniser(tokenizer: Any) -> None:
    (only,) = TransformersTokeniser(tokenizer, max_tokens=512).tokenise(TEXTS)
    assert [list(ids) for ids in only.ids] == [IDS[0], IDS[1][:8]]
    assert (only.positions, only.truncated) == ((0, 1), (False, False))


def test_shapes(random_model: Any) -> None:
    inputs = {"input_ids": torch.tensor(IDS), "attention_mask": torch.tensor(MASK)}
    with torch.inference_mode():
        hidden = random_model.distilbert(**inputs).last_hidden_state
        logits = random_model(**inputs).logits
    assert list(hidden.shape) == [2, 16, 768]
    assert list(logits.shape) == [2, 2]


def test_softmax() -> None:
    table = probabilities(torch.tensor(LOGITS), "softmax")
    for ours, published in zip(table.tolist(), PROBABILITIES, strict=True):
        # As exact as the five digits of the logits allow.
        assert ours == pytest.approx(published, rel=1e-3)


def test_the_labels_keep_their_order(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path, labels=list(ID2LABEL.values()))
    _, classifier = load(ModelSettings(name=str(folder)), 4096)
    assert dict(enumerate(classifier.card.labels)) == ID2LABEL


def test_the_checkpoint_by_hand(reference: ModelSettings) -> None:
    """Each published step, with transformers itself."""
    folder = resolve(reference).folder
    inputs = AutoTokenizer.from_pretrained(folder)(
        TEXTS, padding=True, truncation=True, return_tensors="pt"
    )
    inputs.pop("token_type_ids", None)
    assert inputs["input_ids"].tolist() == IDS
    assert inputs["attention_mask"].tolist() == MASK
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        hidden = AutoModel.from_pretrained(folder).eval()(**inputs).last_hidden_state
        logits = model(**inputs).logits
    assert list(hidden.shape) == [2, 16, 768]
    torch.testing.assert_close(logits, torch.tensor(LOGITS), atol=LOGIT_ERROR, rtol=0)
    assert model.config.id2label == ID2LABEL


def test_the_checkpoint_with_the_worker(reference: ModelSettings) -> None:
    tokeniser, classifier = load(reference, 4096)
    classifier.warm_up()
    assert dict(enumerate(classifier.card.labels)) == ID2LABEL
    (only,) = tokeniser.tokenise(TEXTS)
    assert [list(ids) for ids in only.ids] == [IDS[0], IDS[1][:8]]
    for ours, published in zip(classifier.predict(only), PROBABILITIES, strict=True):
        assert ours.probabilities == pytest.approx(published, abs=PROBABILITY_ERROR)
