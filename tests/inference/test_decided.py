"""A decision on a real model: what transformers gives at that temperature, with merged labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.models import make_checkpoint
from worker.cli.main import main
from worker.core.decisions.treatment import treatment
from worker.core.records import Prediction
from worker.errors import ModelUnchanged, SettingsError
from worker.inference.decided import LoadedClassifier
from worker.inference.loading import load
from worker.inference.tokeniser import TransformersTokeniser
from worker.settings import Settings
from worker.settings import load as load_settings

pytestmark = pytest.mark.usefixtures("offline")

TEXTS = ["I hate this so much!", "Fine.", "What a day."]
EMOTIONS = ("joy", "anger", "annoyance", "fear")


@pytest.fixture(scope="module")
def emotions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("emotions")
    return make_checkpoint(folder, labels=EMOTIONS, problem_type="multi_label_classification")


@pytest.fixture(scope="module")
def stars(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("stars")
    return make_checkpoint(folder, labels=[f"LABEL_{n}" for n in range(3)])


def settings(folder: Path, **decision: Any) -> Settings:
    members = {f"decision.{name}": value for name, value in decision.items()}
    fixed = {"model.name": str(folder), "model.dtype": "float32", "model.engine": "packed"}
    return load_settings(fixed | members, environ={}).settings


def loaded(wanted: Settings) -> tuple[TransformersTokeniser, LoadedClassifier]:
    return load(wanted.model, 4096, treatment=treatment(wanted))


def predictions(wanted: Settings) -> list[Prediction]:
    tokeniser, classifier = loaded(wanted)
    found: dict[int, Prediction] = {}
    for model_input in tokeniser.tokenise(TEXTS):
        found |= zip(model_input.positions, classifier.predict(model_input), strict=True)
    return [found[n] for n in range(len(TEXTS))]


def outputs(folder: Path) -> torch.Tensor:
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        rows = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in TEXTS]
    return torch.stack(rows).double()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_a_temperature_is_that_of_the_outputs(
    stars: Path, emotions: Path, temperature: float
) -> None:
    one = predictions(settings(stars, temperature=temperature))
    many = predictions(settings(emotions, temperature=temperature))
    expected = torch.softmax(outputs(stars) / temperature, dim=-1).tolist()
    independent = torch.sigmoid(outputs(emotions) / temperature).tolist()
    for prediction, row in zip(one + many, expected + independent, strict=True):
        assert prediction.probabilities == pytest.approx(row, abs=1e-5)


def test_merged_labels_are_those_of_the_card(stars: Path, emotions: Path) -> None:
    merged = settings(stars, labels={"LABEL_0": "bad", "LABEL_1": "bad", "LABEL_2": "good"})
    _, classifier = loaded(merged)
    assert classifier.card.labels == ("bad", "good")
    sums = [[row[0] + row[1], row[2]] for row in torch.softmax(outputs(stars), dim=-1).tolist()]
    for prediction, row in zip(predictions(merged), sums, strict=True):
        assert prediction.probabilities == pytest.approx(row, abs=1e-5)
    angry = settings(emotions, labels={"anger": "angry", "annoyance": "angry"})
    for prediction, row in zip(
        predictions(angry), torch.sigmoid(outputs(emotions)).tolist(), strict=True
    ):
        either = 1 - (1 - row[1]) * (1 - row[2])
        assert prediction.probabilities == pytest.approx([row[0], either, row[3]], abs=1e-5)


def test_the_warm_up_keeps_the_decision(stars: Path) -> None:
    """It finds the size of a pass, which the card has then."""
    wanted = settings(stars, digits=3)
    tokeniser, classifier = load(wanted.model, treatment=treatment(wanted))
    classifier.warm_up()
    assert classifier.card.decision is not None
    assert classifier.memory
    assert tokeniser.tokenise(["a"])


def test_a_decision_that_does_not_fit_the_model_is_refused(emotions: Path) -> None:
    with pytest.raises(SettingsError, match=r"decision\.threshold names 'hope'"):
        loaded(settings(emotions, threshold={"hope": 0.4}))


def test_a_changed_decision_is_a_change_of_the_model(emotions: Path) -> None:
    wanted = settings(emotions, threshold=0.4)
    _, classifier = loaded(wanted)
    with pytest.raises(ModelUnchanged):
        load(wanted.model, 4096, treatment=treatment(wanted), unless=classifier.card)
    other = settings(emotions, threshold=0.5)
    again = load(other.model, 4096, treatment=treatment(other), unless=classifier.card)[1]
    assert again.card.identity != classifier.card.identity


def test_classify_prints_the_decision(
    emotions: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    model = ["--model", str(emotions), "--decision-temperature", "2"]
    decided = [*model, "--decision-threshold", "0.01", "--decision-digits", "2"]
    assert main(["classify", "--json", *decided, "--decision-top-k", "2", TEXTS[0]]) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["temperature"], document["decided"]) == (2.0, list(EMOTIONS))
    assert len(document["labels"]) == 2
    assert document["score"] == document["labels"][0]["score"] == round(document["score"], 2)
    assert main(["classify", *decided, TEXTS[0]]) == 0
    assert "joy, anger, annoyance, …" in capsys.readouterr().out
    assert main(["classify", *model, "--decision-threshold", "1", TEXTS[0]]) == 0
    assert capsys.readouterr().out.splitlines()[1].lstrip().startswith("-")
    unsure = ["--decision-min-score", "1", "--decision-uncertain-label", "not sure"]
    assert main(["classify", *model, *unsure, TEXTS[0]]) == 0
    assert "not sure" in capsys.readouterr().out
