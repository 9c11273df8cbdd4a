"""A model that is loaded with a preparation reads prepared texts, and its card says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.models import Architecture
from worker.cli.main import main
from worker.core.decisions.treatment import Treatment
from worker.core.model import PreparesTexts
from worker.errors import ModelUnchanged, SettingsError
from worker.inference.loading import load
from worker.settings import ModelSettings, PrepareSettings

TWEETS = ["@ann see https://t.co/x now", "nothing to replace", "@", "a [SEP] in http"]


@pytest.fixture
def model(checkpoint: Callable[[Architecture], Path]) -> ModelSettings:
    return ModelSettings(name=str(checkpoint("distilbert")), dtype="float32", engine="padded")


def preprocess(text: str) -> str:
    """Return what cardiffnlp publishes for its tweet models."""
    words = ("@user" if w.startswith("@") and len(w) > 1 else w for w in text.split(" "))
    return " ".join("http" if w.startswith("http") else w for w in words)


def test_a_preset_gives_what_transformers_gives_for_the_published_function(
    model: ModelSettings,
) -> None:
    tokeniser, classifier = load(model, treatment=Treatment(prepare=_tweets()))
    inputs = tokeniser.tokenise(TWEETS)
    assert classifier.card.recipe == "tweets"
    theirs = AutoModelForSequenceClassification.from_pretrained(model.name).eval()
    plain = AutoTokenizer.from_pretrained(model.name, split_special_tokens=True)
    for model_input in inputs:
        for position, prediction in zip(
            model_input.positions, classifier.predict(model_input), strict=True
        ):
            with torch.inference_mode():
                encoded = plain(preprocess(TWEETS[position]), return_tensors="pt")
                expected = theirs(**encoded).logits.softmax(-1)[0].tolist()
            assert prediction.probabilities == pytest.approx(expected, abs=1e-5)


def _tweets() -> PrepareSettings:
    return PrepareSettings(preset="tweets")


def test_without_a_preparation_the_model_is_as_before(model: ModelSettings) -> None:
    tokeniser, classifier = load(model)
    assert not isinstance(tokeniser, PreparesTexts)
    assert classifier.card.recipe is None
    assert classifier.card.identity == classifier.card.weights_sha256


def test_special_tokens_are_read_if_so_set(model: ModelSettings) -> None:
    separator = AutoTokenizer.from_pretrained(model.name).sep_token_id

    def found(treatment: Treatment) -> tuple[int, str | None]:
        tokeniser, classifier = load(model, treatment=treatment)
        return tokeniser.tokenise(["a [SEP] b"])[0].ids[0].count(separator), classifier.card.recipe

    assert found(Treatment()) == (1, None)
    read = Treatment(prepare=PrepareSettings(special_tokens="tokens"))
    assert found(read) == (2, "special-tokens")


def test_the_same_weights_with_another_preparation_are_another_model(model: ModelSettings) -> None:
    _, classifier = load(model, treatment=Treatment(prepare=_tweets()))
    with pytest.raises(ModelUnchanged):
        load(model, treatment=Treatment(prepare=_tweets()), unless=classifier.card)
    _, other = load(model, unless=classifier.card)
    assert other.card.identity != classifier.card.identity


def test_a_missing_function_is_told_before_the_weights_are_read(tmp_path: Path) -> None:
    treatment = Treatment(prepare=PrepareSettings(function="no_such_package:function"))
    with pytest.raises(SettingsError, match="no_such_package is not installed"):
        load(ModelSettings(name=str(tmp_path / "nowhere")), treatment=treatment)


def test_classify_says_why_a_text_has_no_label(
    model: ModelSettings, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--model", model.name, "--prepare-function", "ast:literal_eval"]
    assert main(["classify", *arguments, "'fine'", "None", "b'x'"]) == 1
    err = capsys.readouterr().err
    assert "no label for 'None': TextSkipped: prepare.function skips this text" in err
    assert "ast:literal_eval returned bytes: it must return str or None" in err
