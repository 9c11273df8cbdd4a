"""A text's result does not depend on other texts of the pass, and equals transformers'."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from structlog.testing import capture_logs
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BigBirdConfig

from tests.support.models import Architecture, Special, edit_json, make_checkpoint
from worker.core.decisions.treatment import Treatment
from worker.core.model import Classifier
from worker.core.records import Prediction
from worker.errors import ModelUnavailable
from worker.inference import engine, loading
from worker.inference.attention_mode import turning_point
from worker.inference.extra_inputs import ExtraInput, extra_inputs_of
from worker.inference.loading import load
from worker.inference.padding import PaddedForward, Unpadded
from worker.inference.self_check import check_rows, reference_of
from worker.inference.tokeniser import TransformersTokeniser
from worker.settings import ModelSettings, PrepareSettings

pytestmark = pytest.mark.usefixtures("offline")

TOKENS = 64
TEXTS = (
    "no",
    "word " * 200,
    "I hate this so much!",
    "yes",
    "What a day, and what a night.",
    "a text of a middling length, beside which the others are short or long",
)


def loaded(
    folder: Path, *, special_tokens: str = "text", **more: Any
) -> tuple[TransformersTokeniser, Classifier]:
    chosen = {"device": "cpu", "dtype": "float32", "max_tokens": TOKENS} | more
    spelt = Treatment(prepare=PrepareSettings(special_tokens=special_tokens))
    return load(ModelSettings(name=str(folder), **chosen), 4096, treatment=spelt)


def label(
    model: tuple[TransformersTokeniser, Classifier], texts: Sequence[str]
) -> list[Prediction]:
    """Label all texts in one pass."""
    tokeniser, classifier = model
    (whole,) = tokeniser.tokenise(texts)
    predictions = dict(zip(whole.positions, classifier.predict(whole), strict=True))
    return [predictions[index] for index in range(len(texts))]


def by_hand(folder: Path, text: str) -> list[float]:
    """Label one text with transformers itself, with a newly loaded model."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    parameters = inspect.signature(model.forward).parameters
    encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=TOKENS)
    with torch.inference_mode():
        logits = model(**{name: encoded[name] for name in encoded if name in parameters}).logits
    probabilities: list[float] = logits.softmax(-1)[0].tolist()
    return probabilities


def assert_as_by_hand(folder: Path, texts: Sequence[str], **more: Any) -> None:
    for text, ours in zip(texts, label(loaded(folder, **more), texts), strict=True):
        assert ours.probabilities == pytest.approx(by_hand(folder, text), abs=1e-5), text


@pytest.mark.parametrize("architecture", get_args(Special))
def test_no_text_changes_another_texts_result(architecture: Special, tmp_path: Path) -> None:
    assert_as_by_hand(make_checkpoint(tmp_path / "model", architecture=architecture), TEXTS)


@pytest.mark.parametrize(
    ("architecture", "runs"),
    [
        ("gpt2", "padded"),
        ("xlnet", "padded"),
        ("xlm", "padded"),
        ("convbert", "by_length"),
        ("fnet", "by_length"),
        ("yoso", "by_length"),
        ("big_bird", "by_length"),
    ],
)
def test_the_fastest_correct_pass_runs_and_a_slower_one_is_logged(
    architecture: Architecture | Special, runs: str, tmp_path: Path
) -> None:
    folder = make_checkpoint(tmp_path / "model", architecture=architecture)
    with capture_logs() as lines:
        _, classifier = loaded(folder)
    assert (classifier.card.engine, classifier.card.pads) == (runs, runs == "padded")
    warnings = [line for line in lines if line["log_level"] == "warning"]
    assert [line["engine"] for line in warnings] == [runs] * (runs != "padded")
    for line in warnings:
        assert "padding changes this model's results" in line["event"]
        assert line["difference"] > line["tolerance"] == 1e-5
        assert line["times_as_long"] > 0


@pytest.mark.parametrize(
    ("architecture", "dtype"),
    [("convbert", "bfloat16"), ("big_bird", "bfloat16"), ("fnet", "float32")],
)
def test_the_same_pass_is_chosen_for_bfloat16(
    architecture: Special, dtype: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is chosen in float32, where rounding hides no difference; FNet has no bfloat16."""
    monkeypatch.setattr(loading, "choose_dtype", lambda *_: torch.bfloat16)
    folder = make_checkpoint(tmp_path / "model", architecture=architecture)
    _, classifier = model = loaded(folder, dtype="auto")
    assert (classifier.card.engine, classifier.card.dtype) == ("by_length", dtype)
    for text, ours in zip(TEXTS, label(model, TEXTS), strict=True):
        assert ours.probabilities == pytest.approx(by_hand(folder, text), abs=0.03)


def test_a_model_that_fails_in_the_chosen_number_type_is_rejected(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model", architecture="fnet")
    with pytest.raises(ModelUnavailable, match=r"fails on plain texts in bfloat16"):
        loaded(folder, dtype="bfloat16")


def test_a_model_whose_results_depend_on_the_number_of_texts_runs_one_by_one(
    checkpoint: Callable[[Architecture], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that is not deterministic gives a warning."""
    _spoil(monkeypatch, lambda rows, width, made: made + len(rows))
    with capture_logs() as lines:
        _, classifier = loaded(checkpoint("gpt2"))
    assert classifier.card.engine == "one_by_one"
    assert [line["engine"] for line in lines if "times_as_long" in line] == ["one_by_one"]

    _spoil(monkeypatch, lambda rows, width, made: made + torch.rand(1))
    with capture_logs() as lines:
        loaded(checkpoint("gpt2"))
    assert any("other probabilities each time" in line["event"] for line in lines)


def _spoil(monkeypatch: pytest.MonkeyPatch, change: Callable[..., torch.Tensor]) -> None:
    """Change the first output of each text, depending on its pass."""
    plain = PaddedForward.rectangle

    def rectangle(forward: PaddedForward, rows: Any, width: int) -> torch.Tensor:
        made = plain(forward, rows, width).clone()
        made[:, 0] = change(rows, width, made[:, 0])
        return made

    monkeypatch.setattr(engine.PaddedForward, "rectangle", rectangle)


def test_a_slow_model_is_checked_with_few_texts() -> None:
    """A long, a short and a middling one, and some between; a fast model with all texts."""

    class Clock:
        def __init__(self, step: float) -> None:
            self.now, self.step = 0.0, step

        def monotonic(self) -> float:
            self.now += self.step
            return self.now

    rows = [[1] * length for length in range(40, 0, -1)]
    for step, lengths in ((10.0, [40, 34, 28, 22, 20, 1]), (0.0, list(range(40, 0, -1)))):
        reference = reference_of(Sums(), rows, "none", Clock(step))  # type: ignore[arg-type]
        assert [len(row) for row in reference.rows] == lengths
        assert reference.probabilities.flatten().tolist() == lengths


class Sums:
    """A pass that returns the sum of each text's ids."""

    name, device, dtype, longest = "sums", "cpu", "float32", None
    pads, parallel = True, False

    def __init__(self) -> None:
        self.shapes: list[tuple[int, int]] = []

    def __call__(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        return self.rectangle(rows, max(map(len, rows)))

    def rectangle(self, rows: Sequence[Sequence[int]], width: int) -> torch.Tensor:
        self.shapes.append((len(rows), width))
        return torch.tensor([[float(sum(row))] for row in rows])


@pytest.mark.parametrize(
    ("at_once", "shapes"),
    [(None, [(1, 1), (2, 2), (3, 3)]), (2, [(1, 1), (2, 2), (2, 3), (1, 3)])],
)
def test_unpadded_texts_keep_their_order(
    at_once: int | None, shapes: list[tuple[int, int]]
) -> None:
    plain: Any = Sums()
    rows = [(1, 2, 3), (4, 5), (6, 7, 8), (9,), (10, 11, 12), (13, 14)]
    logits = Unpadded(plain, "by_length", at_once)(rows)
    assert logits.flatten().tolist() == [sum(row) for row in rows]
    assert plain.shapes == shapes


class TestExtraInputs:
    """A tokenizer's outputs other than ids and mask."""

    @pytest.mark.parametrize(
        ("architecture", "extra_inputs"),
        [
            ("xlm", {"token_type_ids": ExtraInput((), 0, ())}),
            ("xlnet", {"token_type_ids": ExtraInput((), 0, (2,))}),
            ("distilbert", {}),  # its tokenizer returns one that the model does not take
            ("gpt2", {}),  # the model takes one that its tokenizer does not return
        ],
    )
    def test_the_model_gets_the_inputs_that_it_takes(
        self,
        tmp_path: Path,
        architecture: Architecture | Special,
        extra_inputs: dict[str, ExtraInput],
    ) -> None:
        folder = make_checkpoint(tmp_path / "model", architecture=architecture)
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        assert extra_inputs_of(AutoTokenizer.from_pretrained(folder), model) == extra_inputs

    @pytest.mark.parametrize("engine", ["packed", "padded"])
    def test_token_types_that_differ_within_a_text(self, tmp_path: Path, engine: str) -> None:
        """In packed and padded passes, in texts of two tokens and in long ones."""
        folder = make_checkpoint(tmp_path / "model", architecture="bert")
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="[CLS]:1 $A:0 [SEP]:1", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
        )
        tokenizer.save_pretrained(folder)
        # Its own class would replace the post-processor.
        edit_json(
            folder / "tokenizer_config.json",
            tokenizer_class="PreTrainedTokenizerFast",
            model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        )
        encoded = AutoTokenizer.from_pretrained(folder)("no")
        assert encoded["token_type_ids"] == [1, 0, 1]
        assert_as_by_hand(folder, [*TEXTS, ""], engine=engine)

    def test_an_input_that_depends_on_the_words_is_rejected(self) -> None:
        def tokenizer(texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
            ids = [list(map(len, text.split())) for text in texts]
            return {"input_ids": ids, "shape_ids": ids}

        class Model:
            def forward(self, input_ids: object, shape_ids: object) -> None: ...

        with pytest.raises(ModelUnavailable, match=r"input shape_ids depends on a text's words"):
            extra_inputs_of(tokenizer, Model())


class TestLastToken:
    """Decoders read a text's last token that is not padding; here texts may spell that token."""

    ENDS = ("no<|endoftext|>", "a longer text<|endoftext|><|endoftext|>", *TEXTS)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return make_checkpoint(tmp_path / "model", architecture="gpt2")

    def test_texts_that_spell_out_the_end_token(self, folder: Path) -> None:
        assert_as_by_hand(folder, self.ENDS, special_tokens="tokens")

    def test_a_tokenizer_that_appends_its_end_token(self, folder: Path) -> None:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        end = tokenizer.eos_token_id
        tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
            single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", end)]
        )
        tokenizer.save_pretrained(folder)
        assert_as_by_hand(folder, self.ENDS, special_tokens="tokens")

    def test_padding_that_only_the_tokenizer_states(self, folder: Path) -> None:
        edit_json(folder / "tokenizer_config.json", pad_token="<|endoftext|>")
        assert_as_by_hand(folder, self.ENDS, special_tokens="tokens")

    def test_padding_that_the_checkpoint_states(self, folder: Path) -> None:
        end = AutoTokenizer.from_pretrained(folder).eos_token_id
        edit_json(folder / "config.json", pad_token_id=end)
        assert_as_by_hand(folder, self.ENDS, special_tokens="tokens")

    def test_a_padding_id_outside_of_the_vocabulary_is_ignored(self, folder: Path) -> None:
        edit_json(folder / "config.json", eos_token_id=None, bos_token_id=None)
        edit_json(folder / "tokenizer_config.json", eos_token="<end>", pad_token="<end>")
        edit_json(folder / "config.json", pad_token_id=10_000)
        model = loaded(folder)
        together = label(model, TEXTS)
        for text, among in zip(TEXTS, together, strict=True):
            (alone,) = label(model, [text])
            assert among.probabilities == pytest.approx(alone.probabilities, abs=1e-5)

    def test_a_pass_whose_texts_end_in_every_token_fails(self, folder: Path) -> None:
        forward = PaddedForward(AutoModelForSequenceClassification.from_pretrained(folder), None)
        every = [(number,) for number in range(257)]
        with pytest.raises(ValueError, match="no token is left to pad with"):
            forward(every)
        assert len(forward(every[1:])) == 256


def test_the_check_has_a_text_at_the_turning_point_of_the_attention(
    checkpoint: Callable[[Architecture], Path],
) -> None:
    """BigBird attends to blocks from 705 tokens on; a model that takes fewer never does."""
    config = BigBirdConfig(attention_type="block_sparse", block_size=64, num_random_blocks=3)
    assert turning_point(config) == 705
    assert turning_point(BigBirdConfig(attention_type="original_full")) == 0
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("bert"))
    assert [len(check_rows(tokenizer, takes, 705)[0]) for takes in (4_096, 512)] == [705, 512]
