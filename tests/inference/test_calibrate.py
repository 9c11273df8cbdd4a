"""`streamlabel calibrate` with a real model, whose true temperature is known."""

from __future__ import annotations

import csv
import json
import math
import random
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.models import make_checkpoint
from worker.cli.main import main
from worker.cli.raw_outputs import RawModel
from worker.core.records import ModelInput
from worker.inference.classifier import TransformersClassifier
from worker.inference.tokeniser import TransformersTokeniser
from worker.settings import load
from worker.settings.model_plan import plans

pytestmark = pytest.mark.usefixtures("offline")

WORDS = (
    "angry",
    "joy",
    "this is",
    "the worst day",
    "of all",
    "and I",
    "love",
    "my new cat",
    "so much",
)
EMOTIONS = ("anger", "joy", "fear")
Row = tuple[str, str]


def texts(count: int, seed: int = 1, longest: int = 12) -> list[str]:
    chance = random.Random(seed)
    return [" ".join(chance.choices(WORDS, k=chance.randint(1, longest))) for _ in range(count)]


def logits_of(model: Path, posts: Sequence[str]) -> list[list[float]]:
    """Return what transformers' own model gives for each text."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.inference_mode():
        batches = (
            tokenizer(post, truncation=True, max_length=64, return_tensors="pt") for post in posts
        )
        return [network(**batch).logits[0].tolist() for batch in batches]


def one_label(logits: Sequence[float], temperature: float, chance: random.Random) -> str:
    weights = [math.exp(logit / temperature) for logit in logits]
    return chance.choices(EMOTIONS[: len(weights)], weights)[0]


def several(logits: Sequence[float], temperature: float, chance: random.Random) -> str:
    truth = [1 / (1 + math.exp(-logit / temperature)) > chance.random() for logit in logits]
    return "|".join(label for label, true in zip(EMOTIONS, truth, strict=True) if true)


def write(file: Path, rows: Iterable[Row], label: str = "label") -> Path:
    with file.open("w", newline="", encoding="utf-8") as opened:
        writer = csv.writer(opened)
        writer.writerows([("text", label), *rows])
    return file


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model with three labels that exclude each other."""
    return make_checkpoint(tmp_path / "model", labels=EMOTIONS)


@pytest.fixture
def multi_label(tmp_path: Path) -> Path:
    return make_checkpoint(
        tmp_path / "multi", labels=EMOTIONS, problem_type="multi_label_classification"
    )


def calibrate(model: Path, file: Path, *more: str) -> int:
    return main(["calibrate", "--model", str(model), "--texts", str(file), *more])


def test_a_known_temperature_is_written_for_a_worker(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A bad row is told and left out; the settings load, and `classify` applies them."""
    posts, chance = texts(600), random.Random(2)
    rows = [
        (post, one_label(logits, 3.0, chance))
        for post, logits in zip(posts, logits_of(model, posts), strict=True)
    ]
    file = write(tmp_path / "labelled.csv", [(" ", "joy"), *rows])
    output = tmp_path / "decision.toml"
    assert calibrate(model, file, "--output", str(output)) == 0
    printed = capsys.readouterr()
    assert "left out 1 row of" in printed.err
    assert "  line 2: its text is blank" in printed.err
    assert "600 texts of" in printed.out
    assert f"wrote {output}" in printed.out
    found = load(config=output, environ={}).settings.decision
    assert found.temperature == pytest.approx(3.0, rel=0.15)
    assert found.threshold is None
    before, after = figures(printed.out, "expected calibration error")
    assert after < before / 2
    assert (
        main(["classify", "--json", "--model", str(model), "--config", str(output), posts[0]]) == 0
    )
    document = json.loads(capsys.readouterr().out)
    weights = [math.exp(logit / found.temperature) for logit in logits_of(model, posts[:1])[0]]
    scores = {entry["label"]: entry["score"] for entry in document["labels"]}
    assert scores["anger"] == pytest.approx(weights[0] / sum(weights), abs=2e-3)


def test_a_file_that_exists_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before a model is loaded; --force does not replace the settings file either."""
    config, output = tmp_path / "streamlabel.toml", tmp_path / "old.toml"
    config.write_text("[decision]\ntop_k = 2\n")
    output.write_text("precious")
    monkeypatch.chdir(tmp_path)
    none = tmp_path / "none.csv"
    assert calibrate(none, none, "--output", str(output)) == 2
    assert f"--output {output} exists: overwrite it with --force" in capsys.readouterr().err
    assert calibrate(none, none, "--output", "./streamlabel.toml", "--force") == 2
    assert "is the settings file in use" in capsys.readouterr().err
    assert (config.read_text(), output.read_text()) == ("[decision]\ntop_k = 2\n", "precious")
    assert calibrate(none, none, "--output", str(output), "--force") == 1  # there are no texts


def figures(printed: str, name: str) -> tuple[float, float]:
    found = re.search(rf"^{name} +([\d.]+) +([\d.]+)$", printed, re.MULTILINE)
    assert found, printed
    return float(found[1]), float(found[2])


def test_thresholds_are_written_for_a_worker(
    multi_label: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A label that hardly any text has gets none; members that are set already are kept."""
    posts, chance = texts(600), random.Random(2)
    rows = [
        (post, several(logits, 2.0, chance).replace("fear", "").strip("|"))
        for post, logits in zip(posts, logits_of(multi_label, posts), strict=True)
    ]
    file = write(tmp_path / "labelled.csv", rows, "labels")
    output = tmp_path / "decision.toml"
    config = tmp_path / "streamlabel.toml"
    config.write_text("[decision]\ntop_k = 2\nthreshold = 0.9\ntemperature = 9.0\n")
    assert calibrate(multi_label, file, "--config", str(config), "--output", str(output)) == 0
    found = load(config=output, environ={}).settings.decision
    assert found.top_k == 2
    assert isinstance(found.threshold, dict)
    assert found.threshold.keys() == {"anger", "joy"}
    printed = capsys.readouterr().out
    assert f"  joy    {found.threshold['joy']:g}\n" in printed
    assert "  fear   0.5 (fewer than 5 texts have it, or lack it)" in printed
    assert all(0 < f1 < 1 for f1 in figures(printed, "mean F1 of the labels"))


def test_without_a_file_the_settings_are_printed(
    multi_label: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    posts, chance = texts(80), random.Random(2)
    rows = [
        (post, several(logits, 1.0, chance))
        for post, logits in zip(posts, logits_of(multi_label, posts), strict=True)
    ]
    assert calibrate(multi_label, write(tmp_path / "a.csv", rows), "--folds", "2") == 0
    printed = capsys.readouterr().out
    assert "fewer than 500 texts: the figures are rough" in printed
    assert "2 folds" in printed
    assert "\n[decision]\ntemperature = " in printed
    assert "\n[decision.threshold]\n" in printed


def test_merged_labels_and_windows_are_calibrated_as_a_worker_computes_them(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The worker's probabilities with the settings found have the loss that the report states."""
    posts, chance = texts(80, longest=150), random.Random(2)
    rows = [(post, chance.choice(("bad", "bad", "joy"))) for post in posts]
    config = tmp_path / "streamlabel.toml"
    config.write_text(
        '[decision.labels]\nanger = "bad"\nfear = "bad"\n'
        '[input]\noverflow = "windows"\nstride = 16\n'
    )
    given = ("--config", str(config))
    output = tmp_path / "decision.toml"
    assert calibrate(model, write(tmp_path / "a.csv", rows), *given, "--output", str(output)) == 0
    found = load(config=output, environ={}).settings.decision
    assert found.labels == {"anger": "bad", "fear": "bad"}
    capsys.readouterr()
    raw = RawModel(load(config=config, environ={}, flags={"model.name": str(model)}).settings)
    assert raw.labels == ("bad", "joy")
    outputs = raw.label(posts[:20])
    assert max(map(len, outputs)) > 1
    config.write_text(
        output.read_text() + config.read_text().partition("\n[input]")[2].join(("\n[input]", ""))
    )
    assert main(["classify", "--json", "--model", str(model), *given, *posts[:20]]) == 0
    documents = map(json.loads, capsys.readouterr().out.splitlines())
    for document, one in zip(documents, outputs, strict=True):
        stated = [entry["score"] for entry in document["labels"]]
        assert not isinstance(one, str)
        assert found.temperature is not None
        assert raw.rescale(one, found.temperature) == pytest.approx(stated, abs=1e-5)


def test_texts_are_prepared_as_a_worker_prepares_them(model: Path) -> None:
    settings = load({"model.name": str(model), "prepare.preset": "tweets"}, environ={}).settings
    raw = RawModel(settings)
    mention, prepared, other = raw.label(["@bob is angry", "@user is angry", "bob is angry"])
    assert mention == prepared != other


def test_one_of_several_models_is_calibrated(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its decision is a table of its own; the other model keeps its settings."""
    file = write(tmp_path / "a.csv", [(post, EMOTIONS[n % 2]) for n, post in enumerate(texts(60))])
    config, output = tmp_path / "streamlabel.toml", tmp_path / "decision.toml"
    config.write_text(
        f'[models.mood]\nname = "{model}"\n[models.mood.decision]\ndigits = 3\n'
        '[models.other]\nname = "nowhere"\n'
    )
    given = ["calibrate", "--texts", str(file), "--config", str(config)]
    assert main([*given, "--name", "mood", "--output", str(output)]) == 0
    written = output.read_text()
    assert "\n[models.mood.decision]\ndigits = 3\ntemperature = " in written
    config.write_text(f'{written}\n[models.mood]\nname = "{model}"\n')
    (plan,) = plans(load(config=config, environ={}).settings)
    assert plan.decision.digits == 3
    assert plan.decision.temperature is not None
    output.unlink()
    assert main([*given, "--output", str(output)]) == 0  # the only one needs no name
    capsys.readouterr()


@pytest.mark.parametrize(
    ("models", "name", "message"),
    [
        ("{a = {name = 'x'}, b = {name = 'x'}}", (), "choose a model with --name: a, b"),
        ("{a = {name = 'x'}, b = {name = 'x'}}", ("c",), "choose a model with --name: a, b"),
        ("{}", ("c",), "--name c: the settings have only [model]; leave --name out"),
    ],
)
def test_the_model_must_be_clear(
    models: str, name: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = [f"--name={one}" for one in name]
    assert main(["calibrate", "--texts", "a.csv", "--models", models, *chosen]) == 2
    assert message in capsys.readouterr().err


def test_a_text_that_the_model_fails_on_is_left_out(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokenise, begin = TransformersTokeniser.tokenise, TransformersClassifier.begin

    def broken(self: TransformersTokeniser, posts: Sequence[str], *step: Any) -> Any:
        if "no tokens" in posts:
            raise ValueError("has no tokens")
        return tokenise(self, posts, *step)

    def short(self: TransformersClassifier, model_input: ModelInput) -> Any:
        if max(map(len, model_input.ids)) > 60:
            raise FloatingPointError("is too much")
        return begin(self, model_input)

    monkeypatch.setattr(TransformersTokeniser, "tokenise", broken)
    monkeypatch.setattr(TransformersClassifier, "begin", short)
    monkeypatch.setattr(TransformersClassifier, "warm_up", lambda _: None)
    rows = [(post, EMOTIONS[n % 2]) for n, post in enumerate(texts(60))]
    rows += [("no tokens", "joy"), ("so many words " * 30, "joy"), ("twice", "joy|anger")]
    assert calibrate(model, write(tmp_path / "a.csv", rows)) == 0
    told = capsys.readouterr().err
    assert "left out 3 rows of" in told
    assert "  line 62: has no tokens\n  line 63: is too much\n  line 64: it has 2 labels" in told


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "joy")] * 49, "has 49 usable texts, and a calibration needs 50: label more"),
        (
            [("a", "joy")] * 49 + [(" ", "joy")],
            "has 49 usable texts (1 row left out, such as line 51: its text is blank)",
        ),
        ([("a", "joy")] * 60, "all texts of a.csv have the label 'joy': add texts of the others"),
        ([("a", "sad")] * 60, "labels that the model lacks: 'sad' (60 rows); the model's labels"),
        ([("a", "joy|fear")] * 60, "has 0 usable texts (60 rows left out, such as line 2: it has"),
    ],
)
def test_labels_that_fit_nothing_are_refused(
    model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    rows: list[Row],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.csv", rows)
    assert calibrate(model, Path("a.csv")) == 1
    assert message in capsys.readouterr().err


def test_independent_labels_need_texts_with_and_without_one(
    multi_label: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.csv", [("a", "joy")] * 60)
    assert calibrate(multi_label, file) == 1
    assert "has no label that 5 texts have and 5 lack: label more" in capsys.readouterr().err


def test_outputs_that_are_probabilities_already_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write(tmp_path / "a.csv", [("a", "joy")] * 60)
    assert calibrate(model, file, "--model-activation", "none") == 1
    assert "model.activation = 'none'" in capsys.readouterr().err


def test_an_output_that_cannot_be_written_is_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the model is loaded, if its directory is missing."""
    file = write(tmp_path / "a.csv", [(post, EMOTIONS[n % 2]) for n, post in enumerate(texts(60))])
    missing = tmp_path / "missing" / "decision.toml"
    assert calibrate(Path("nowhere"), file, "--output", str(missing)) == 2
    assert "there is no such directory; make it first" in capsys.readouterr().err
    assert calibrate(model, file, "--output", str(tmp_path)) == 1
    assert f"can't write {tmp_path}: Is a directory" in capsys.readouterr().err
