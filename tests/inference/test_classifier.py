"""From ids to probabilities: correct, in order, and independent of the other texts of a pass."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.models import Architecture, edit_json, make_checkpoint
from worker.core.budget import ForwardBudget
from worker.core.model import Classifier
from worker.core.records import Activation, ModelInput, Prediction
from worker.errors import ModelUnavailable, OutOfMemory, SettingsError
from worker.inference import loading, placement
from worker.inference.classifier import probabilities
from worker.inference.lanes import Lanes
from worker.inference.loading import load
from worker.inference.padding import padded
from worker.inference.tokeniser import TransformersTokeniser
from worker.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("offline")

ARCHITECTURES = get_args(Architecture)
TEXTS = (
    "Fine.",
    "I hate this so much!",
    "word " * 200,
    "",
    "I've been waiting for a HuggingFace course my whole life.",
    "שלום 😀 日本語",
)


def loaded(
    folder: Path, forward_tokens: int = 4096, **more: Any
) -> tuple[TransformersTokeniser, Classifier]:
    chosen = {"device": "cpu", "dtype": "float32"} | more
    return load(ModelSettings(name=str(folder), **chosen), forward_tokens)


def module_of(classifier: Any) -> Any:
    """Return the module of a classifier, whose pass may run in lanes."""
    forward = classifier.forward
    return (forward._forward if isinstance(forward, Lanes) else forward)._model


def label(
    model: tuple[TransformersTokeniser, Classifier], texts: Sequence[str]
) -> list[Prediction]:
    tokeniser, classifier = model
    budget = ForwardBudget(classifier.card.forward_tokens, pads=classifier.card.pads)
    predictions = {
        position: prediction
        for model_input in tokeniser.tokenise(texts)
        for part in budget.cut(model_input)
        for position, prediction in zip(part.positions, classifier.predict(part), strict=True)
    }
    return [predictions[i] for i in range(len(texts))]


@pytest.fixture(params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, checkpoint: Callable[[Architecture], Path]) -> Path:
    return checkpoint(request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    """Restore the number of threads, which applies to the whole process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_text_gets_the_probabilities_of_transformers(folder: Path) -> None:
    """The reference is the library itself, one text after the other."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for text, ours in zip(TEXTS, label(loaded(folder), TEXTS), strict=True):
        encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=64)
        if encoded["input_ids"].shape[1] == 0:
            continue  # gpt2 has no token for an empty text, and fails
        with torch.inference_mode():
            theirs = model(encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
        assert ours.probabilities == pytest.approx(theirs.softmax(-1)[0].tolist(), abs=1e-5)
        assert ours.token_count == encoded["input_ids"].shape[1]
        assert ours.truncated == (text == "word " * 200)


def test_other_texts_of_a_batch_change_nothing(folder: Path) -> None:
    """Alone, in a mixed rectangle, or with the longest text: the same to 1e-5."""
    model = loaded(folder)
    together = label(model, TEXTS)
    for text, among in zip(TEXTS, together, strict=True):
        (alone,) = label(model, [text])
        assert among.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert (among.token_count, among.truncated) == (alone.token_count, alone.truncated)


def test_a_smaller_budget_does_not_change_results(folder: Path) -> None:
    narrow, wide = label(loaded(folder, 64), TEXTS * 5), label(loaded(folder), TEXTS * 5)
    for small, large in zip(narrow, wide, strict=True):
        assert small.probabilities == pytest.approx(large.probabilities, abs=1e-5)


def test_the_longest_text_fits_the_position_embeddings(folder: Path) -> None:
    """RoBERTa states two more positions than a text may have tokens."""
    tokeniser, classifier = loaded(folder)
    assert classifier.card.max_tokens == 64
    (longest,) = tokeniser.tokenise(["word " * 1_000])
    assert len(longest.ids[0]) == 64
    classifier.predict(longest)
    if folder.name == "modernbert":
        return  # it has no position embeddings
    one_more = ModelInput(((longest.ids[0][1],) * 65,), (0,), (False,))
    with pytest.raises((IndexError, RuntimeError)):
        classifier.predict(one_more)


def test_the_smallest_limit_applies(checkpoint: Callable[[Architecture], Path]) -> None:
    tokeniser, classifier = loaded(checkpoint("distilbert"), max_tokens=10)
    assert classifier.card.max_tokens == 10
    assert len(tokeniser.tokenise(["word " * 100])[0].ids[0]) == 10


def test_max_tokens_above_the_models_limit_are_reduced(
    checkpoint: Callable[[Architecture], Path],
) -> None:
    with capture_logs() as lines:
        _, classifier = loaded(checkpoint("roberta"), max_tokens=100)
    assert classifier.card.max_tokens == 64
    assert [(line["wanted"], line["limit"]) for line in lines if "wanted" in line] == [(100, 64)]


def test_a_budget_below_the_longest_text_is_rejected(folder: Path) -> None:
    with pytest.raises(SettingsError, match=r"batch\.forward_tokens \(63\)"):
        loaded(folder, 63)


def test_single_label_probabilities_sum_to_one(folder: Path) -> None:
    for prediction in label(loaded(folder), TEXTS):
        assert sum(prediction.probabilities) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("problem_type", [None, "single_label_classification"])
def test_three_labels(tmp_path: Path, problem_type: str | None) -> None:
    names = ("LABEL_0", "LABEL_1", "LABEL_2")
    model = loaded(make_checkpoint(tmp_path, labels=names, problem_type=problem_type))
    assert model[1].card.labels == names
    (prediction,) = label(model, ["Three."])
    assert sum(prediction.probabilities) == pytest.approx(1.0, abs=1e-6)


def test_labels_of_a_multi_label_model_are_independent(tmp_path: Path) -> None:
    """With and without the declaration: sigmoid and softmax of the same logits."""
    names = ("toxic", "insult", "threat")
    declared = make_checkpoint(
        tmp_path / "multi", labels=names, problem_type="multi_label_classification"
    )
    single = make_checkpoint(tmp_path / "single", labels=names)
    (alone,), (shared,) = label(loaded(declared), ["Hey."]), label(loaded(single), ["Hey."])
    assert sum(alone.probabilities) != pytest.approx(1.0, abs=1e-3)
    logits = torch.logit(torch.tensor(alone.probabilities))
    assert torch.softmax(logits, 0).tolist() == pytest.approx(shared.probabilities, abs=1e-4)


class TestActivation:
    """Outputs become probabilities by the settings, else by the checkpoint."""

    NAMES = ("toxic", "insult", "threat")

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return make_checkpoint(tmp_path / "model", labels=self.NAMES)

    @pytest.mark.parametrize("problem_type", [None, "multi_label_classification", "multilabel"])
    def test_the_setting_overrides_the_checkpoint(
        self, folder: Path, problem_type: str | None
    ) -> None:
        """It helps if the checkpoint has no problem type, or a wrong one."""
        edit_json(folder / "config.json", problem_type=problem_type)
        (softmax,), (sigmoid,) = (
            label(loaded(folder, activation=chosen), ["Hey."]) for chosen in ("softmax", "sigmoid")
        )
        logits = torch.logit(torch.tensor(sigmoid.probabilities))
        assert torch.softmax(logits, 0).tolist() == pytest.approx(softmax.probabilities, abs=1e-4)
        assert sum(sigmoid.probabilities) != pytest.approx(1.0, abs=1e-3)

    def test_an_unknown_problem_type_is_rejected(self, folder: Path) -> None:
        edit_json(folder / "config.json", problem_type="multilabel")
        with pytest.raises(
            ModelUnavailable, match=r"problem_type = 'multilabel'.*set model\.activation to softmax"
        ):
            loaded(folder)

    def test_outputs_that_are_probabilities_are_not_changed(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (expected,) = label(loaded(folder, activation="sigmoid"), ["Hey."])
        model = _, classifier = loaded(folder, activation="none")
        module = module_of(classifier)
        module.classifier.register_forward_hook(lambda _, __, made: torch.sigmoid(made))
        classifier.warm_up()
        (prediction,) = label(model, ["Hey."])
        assert prediction.probabilities == pytest.approx(expected.probabilities, abs=1e-6)

    def test_outputs_that_are_not_probabilities_are_rejected(self, folder: Path) -> None:
        model = loaded(folder, activation="none")
        with pytest.raises(FloatingPointError, match=r"'none', but .* between -?[0-9.]+ and"):
            label(model, TEXTS)
        with pytest.raises(ModelUnavailable, match=r"use softmax .* or sigmoid"):
            model[1].warm_up()

    def test_softmax_of_a_single_label_is_rejected(self, tmp_path: Path) -> None:
        folder = make_checkpoint(tmp_path / "one", labels=("toxic",))
        with pytest.raises(SettingsError, match=r"'softmax', but one has a single label"):
            loaded(folder, activation="softmax")


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
def test_a_single_output_is_an_independent_probability(
    tmp_path: Path, problem_type: str | None
) -> None:
    """A softmax over one output would be 1.0 for every text."""
    model = loaded(make_checkpoint(tmp_path, labels=("toxic",), problem_type=problem_type))
    scores = [p.probabilities for p in label(model, TEXTS)]
    assert all(len(row) == 1 for row in scores)
    assert len({round(row[0], 4) for row in scores}) > 1


def test_the_card_describes_the_model(tmp_path: Path) -> None:
    _, classifier = loaded(make_checkpoint(tmp_path / "mine", labels=("bad", "good")))
    card = classifier.card
    assert (card.name, card.revision, card.labels) == ("mine", "local", ("bad", "good"))
    assert (card.engine, card.dtype, card.device) == ("packed", "float32", "cpu")
    assert len(card.weights_sha256) == 64


@pytest.mark.parametrize(
    ("lanes", "wanted", "expected"),
    [(1, None, 512), (1, 1024, 1024), (2, None, 4096), (2, 1024, 1024)],
)
def test_the_warm_up_finds_the_tokens_of_a_pass_unless_set(
    checkpoint: Callable[[Architecture], Path],
    monkeypatch: pytest.MonkeyPatch,
    lanes: int,
    wanted: int | None,
    expected: int,
) -> None:
    """Lanes choose the size of their parts themselves."""
    monkeypatch.setattr(loading, "best_size", lambda *_, **__: 512)
    _, classifier = load(ModelSettings(name=str(checkpoint("distilbert")), lanes=lanes), wanted)
    classifier.warm_up()
    assert classifier.card.forward_tokens == expected


def test_bfloat16_stays_near_float32(folder: Path) -> None:
    """Probabilities are float32: in bfloat16 they could sum to 1.004."""
    _, classifier = model = loaded(folder, dtype="bfloat16")
    assert classifier.card.dtype == "bfloat16"
    for short, exact in zip(label(model, TEXTS), label(loaded(folder), TEXTS), strict=True):
        assert sum(short.probabilities) == pytest.approx(1.0, abs=1e-6)
        assert short.probabilities == pytest.approx(exact.probabilities, abs=0.05)


@pytest.mark.parametrize(
    ("capabilities", "chosen"),
    [
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"avx2": True, "amx_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_is_bfloat16_only_on_processors_that_support_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], chosen: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert placement.choose_dtype("auto", "cpu") is chosen
    assert placement.choose_dtype("float32", "cpu") is torch.float32
    assert placement.choose_dtype("bfloat16", "cpu") is torch.bfloat16


def test_the_device_is_chosen_by_setting_and_hardware(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    chosen = [placement.choose_device(wanted) for wanted in ("auto", "cpu", "cuda")]
    assert chosen == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert placement.choose_device("auto") == "cpu"
    with pytest.raises(SettingsError, match=r"model\.device"):
        placement.choose_device("cuda")


@pytest.mark.usefixtures("threads")
def test_the_number_of_threads_applies_to_other_threads(
    checkpoint: Callable[[Architecture], Path],
) -> None:
    loaded(checkpoint("distilbert"), threads=1)
    seen: list[int] = []
    other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    other.start()
    other.join()
    assert [*seen, torch.get_num_threads()] == [1, 1]


class TestBrokenModel:
    @pytest.fixture
    def broken(
        self, checkpoint: Callable[[Architecture], Path]
    ) -> tuple[TransformersTokeniser, Any]:
        """Return a model that gives NaN only for the word "hate"."""
        tokeniser, classifier = loaded(checkpoint("distilbert"))
        weights = dict(module_of(classifier).named_parameters())
        weights["distilbert.embeddings.word_embeddings.weight"].data[5223] = float("nan")
        return tokeniser, classifier

    def test_a_result_that_is_not_a_number_is_rejected(
        self, broken: tuple[TransformersTokeniser, Any]
    ) -> None:
        with pytest.raises(FloatingPointError, match="not a finite number"):
            label(broken, ["Fine.", "I hate this so much!"])

    def test_other_texts_can_still_be_labelled(
        self, broken: tuple[TransformersTokeniser, Any]
    ) -> None:
        assert len(label(broken, ["Fine.", "I love this."])) == 2

    def test_the_warm_up_detects_a_model_that_always_fails(
        self, broken: tuple[TransformersTokeniser, Any]
    ) -> None:
        _, classifier = broken
        classifier.warm_up()
        dict(module_of(classifier).named_parameters())["classifier.bias"].data[:] = float("inf")
        with pytest.raises(ModelUnavailable, match="fails on plain texts"):
            classifier.warm_up()


class TestOutOfMemory:
    @pytest.fixture
    def model(
        self, checkpoint: Callable[[Architecture], Path]
    ) -> tuple[TransformersTokeniser, Any]:
        return loaded(checkpoint("distilbert"))

    @pytest.mark.parametrize(
        "error",
        [
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
            RuntimeError("[CPU] MVN node with name 'embeddings.LayerNorm/MVN' can't alloc"),
            MemoryError(),
        ],
    )
    def test_out_of_memory_is_recognised(
        self,
        model: tuple[TransformersTokeniser, Any],
        error: Exception,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(**_: object) -> None:
            raise error

        monkeypatch.setattr(module_of(model[1]), "forward", fail)
        with pytest.raises(
            OutOfMemory, match="a pass of 2 texts with 12 tokens does not fit the memory of the cpu"
        ):
            label(model, ["I love this.", "I hate this."])
        with pytest.raises(ModelUnavailable, match="fails on plain texts"):
            model[1].warm_up()

    def test_the_error_of_the_cpus_allocator_is_recognised(
        self, model: tuple[TransformersTokeniser, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The request exceeds the address space; the new error does not reference the tensors."""

        def forward(**_: object) -> None:
            torch.empty(10**15)

        monkeypatch.setattr(module_of(model[1]), "forward", forward)
        with pytest.raises(OutOfMemory) as raised:
            label(model, ["Fine."])
        assert raised.value.__context__ is None

    def test_other_errors_of_the_engine_are_not_changed(
        self, model: tuple[TransformersTokeniser, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(**_: object) -> None:
            raise RuntimeError("a shape is wrong")

        monkeypatch.setattr(module_of(model[1]), "forward", fail)
        with pytest.raises(RuntimeError, match="shape"):
            label(model, ["Fine."])


def test_padding_is_on_the_right_and_masked() -> None:
    ids, mask = padded([(1, 2, 3), (4,)], pad_id=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_softmax_and_sigmoid_of_extreme_logits_are_finite() -> None:
    """A hand-written softmax gives NaN here."""
    extreme = torch.tensor([[-60.0, 30.0], [1e4, -1e4]])
    assert probabilities(extreme, "softmax").tolist() == [
        [pytest.approx(0.0), 1.0],
        [1.0, 0.0],
    ]
    assert torch.isfinite(probabilities(extreme, "sigmoid")).all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-50, 50, width=16), min_size=1, max_size=6))
def test_probabilities_are_probabilities(row: list[float]) -> None:
    logits = torch.tensor([row], dtype=torch.bfloat16)
    activations: tuple[Activation, ...] = ("softmax", "sigmoid")
    for activation in activations:
        scores = probabilities(logits, activation)
        assert scores.dtype is torch.float32
        assert ((scores >= 0) & (scores <= 1)).all()
        assert activation == "sigmoid" or float(scores.sum()) == pytest.approx(1.0, abs=1e-6)
