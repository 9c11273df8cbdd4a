"""From ids to probabilities: right, in order, and independent of who shares the pass."""

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


def label(
    model: tuple[TransformersTokeniser, Classifier], texts: Sequence[str]
) -> list[Prediction]:
    tokeniser, classifier = model
    budget = ForwardBudget(classifier.card.forward_tokens, pads=classifier.card.pads)
    found = {
        position: prediction
        for model_input in tokeniser.tokenise(texts)
        for one in budget.cut(model_input)
        for position, prediction in zip(one.positions, classifier.predict(one), strict=True)
    }
    return [found[i] for i in range(len(texts))]


@pytest.fixture(params=ARCHITECTURES)
def folder(request: pytest.FixtureRequest, checkpoint: Callable[[Architecture], Path]) -> Path:
    return checkpoint(request.param)


@pytest.fixture
def threads() -> Iterator[None]:
    """The number of threads is the process's; put it back."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_a_text_is_labelled_as_transformers_alone_would(folder: Path) -> None:
    """The same logits as from the library by hand, one text after the other, and in their order."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    for text, ours in zip(TEXTS, label(loaded(folder), TEXTS), strict=True):
        encoded = tokenizer(text, return_tensors="pt", truncation=True, max_length=64)
        if encoded["input_ids"].shape[1] == 0:
            continue  # gpt2 has no token for no text, and fails
        with torch.inference_mode():
            theirs = model(encoded["input_ids"], attention_mask=encoded["attention_mask"]).logits
        assert ours.probabilities == pytest.approx(theirs.softmax(-1)[0].tolist(), abs=1e-5)
        assert ours.token_count == encoded["input_ids"].shape[1]
        assert ours.truncated == (text == "word " * 200)


def test_batch_mates_change_nothing(folder: Path) -> None:
    """Alone, in the middle of a mixed rectangle, or beside the longest: the same to 1e-5."""
    model = loaded(folder)
    together = label(model, TEXTS)
    for text, among in zip(TEXTS, together, strict=True):
        (alone,) = label(model, [text])
        assert among.probabilities == pytest.approx(alone.probabilities, abs=1e-5)
        assert (among.token_count, among.truncated) == (alone.token_count, alone.truncated)


def test_a_smaller_budget_changes_the_passes_alone(folder: Path) -> None:
    narrow, wide = label(loaded(folder, 64), TEXTS * 5), label(loaded(folder), TEXTS * 5)
    for one, other in zip(narrow, wide, strict=True):
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


def test_the_longest_text_fits_the_table_of_positions(folder: Path) -> None:
    """RoBERTa states two positions more than a text may have tokens."""
    tokeniser, classifier = loaded(folder)
    assert classifier.card.max_tokens == 64
    (longest,) = tokeniser.tokenise(["word " * 1_000])
    assert len(longest.ids[0]) == 64
    classifier.predict(longest)
    if folder.name == "modernbert":
        return  # it has no table
    one_more = ModelInput(((longest.ids[0][1],) * 65,), (0,), (False,))
    with pytest.raises((IndexError, RuntimeError)):
        classifier.predict(one_more)


def test_the_shortest_limit_holds(checkpoint: Callable[[Architecture], Path]) -> None:
    tokeniser, classifier = loaded(checkpoint("distilbert"), max_tokens=10)
    assert classifier.card.max_tokens == 10
    assert len(tokeniser.tokenise(["word " * 100])[0].ids[0]) == 10


def test_more_tokens_than_the_model_takes_are_not_had(
    checkpoint: Callable[[Architecture], Path],
) -> None:
    with capture_logs() as lines:
        _, classifier = loaded(checkpoint("roberta"), max_tokens=100)
    assert classifier.card.max_tokens == 64
    assert [(line["asked"], line["takes"]) for line in lines if "asked" in line] == [(100, 64)]


def test_a_budget_that_one_text_exceeds_is_refused(folder: Path) -> None:
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


def test_labels_of_a_multi_label_model_stand_alone(tmp_path: Path) -> None:
    """The same weights with and without the declaration: sigmoid and softmax of the same logits."""
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
    """What makes probabilities of the outputs: as the settings say, else as the checkpoint does."""

    NAMES = ("toxic", "insult", "threat")

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        return make_checkpoint(tmp_path / "model", labels=self.NAMES)

    @pytest.mark.parametrize("problem_type", [None, "multi_label_classification", "multilabel"])
    def test_the_setting_goes_first(self, folder: Path, problem_type: str | None) -> None:
        """It is the way out where the checkpoint is silent, or wrong."""
        edit_json(folder / "config.json", problem_type=problem_type)
        (softmax,), (sigmoid,) = (
            label(loaded(folder, activation=chosen), ["Hey."]) for chosen in ("softmax", "sigmoid")
        )
        logits = torch.logit(torch.tensor(sigmoid.probabilities))
        assert torch.softmax(logits, 0).tolist() == pytest.approx(softmax.probabilities, abs=1e-4)
        assert sum(sigmoid.probabilities) != pytest.approx(1.0, abs=1e-3)

    def test_a_problem_that_is_not_known_is_refused(self, folder: Path) -> None:
        edit_json(folder / "config.json", problem_type="multilabel")
        with pytest.raises(
            ModelUnavailable, match=r"problem_type = 'multilabel'.*set model\.activation to softmax"
        ):
            loaded(folder)

    def test_outputs_that_are_probabilities_stay_as_they_are(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (expected,) = label(loaded(folder, activation="sigmoid"), ["Hey."])
        model = _, classifier = loaded(folder, activation="none")
        module = classifier.forward._model  # type: ignore[attr-defined]
        module.classifier.register_forward_hook(lambda _, __, made: torch.sigmoid(made))
        classifier.warm_up()
        (found,) = label(model, ["Hey."])
        assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-6)

    def test_outputs_that_are_none_are_never_published(self, folder: Path) -> None:
        model = loaded(folder, activation="none")
        with pytest.raises(FloatingPointError, match=r"'none', but .* between -?[0-9.]+ and"):
            label(model, TEXTS)
        with pytest.raises(ModelUnavailable, match=r"use softmax .* or sigmoid"):
            model[1].warm_up()

    def test_one_label_of_a_softmax_says_nothing(self, tmp_path: Path) -> None:
        one = make_checkpoint(tmp_path / "one", labels=("toxic",))
        with pytest.raises(SettingsError, match=r"'softmax', but one has a single label"):
            loaded(one, activation="softmax")


@pytest.mark.parametrize("problem_type", [None, "multi_label_classification"])
def test_one_output_is_a_probability_of_its_own(tmp_path: Path, problem_type: str | None) -> None:
    """A softmax over one output would say 1.0 of every text."""
    model = loaded(make_checkpoint(tmp_path, labels=("toxic",), problem_type=problem_type))
    scores = [p.probabilities for p in label(model, TEXTS)]
    assert all(len(row) == 1 for row in scores)
    assert len({round(row[0], 4) for row in scores}) > 1


def test_the_card_tells_what_runs(tmp_path: Path) -> None:
    _, classifier = loaded(make_checkpoint(tmp_path / "mine", labels=("bad", "good")))
    card = classifier.card
    assert (card.name, card.revision, card.labels) == ("mine", "local", ("bad", "good"))
    assert (card.engine, card.dtype, card.device) == ("packed", "float32", "cpu")
    assert len(card.weights_sha256) == 64


@pytest.mark.parametrize(
    ("lanes", "asked", "found"), [(1, None, 512), (1, 1024, 1024), (2, None, 4096), (2, 1024, 1024)]
)
def test_the_warm_up_finds_the_tokens_of_a_pass_unless_they_are_set(
    checkpoint: Callable[[Architecture], Path],
    monkeypatch: pytest.MonkeyPatch,
    lanes: int,
    asked: int | None,
    found: int,
) -> None:
    """Lanes find the size of their parts themselves."""
    monkeypatch.setattr(loading, "best_size", lambda *_, **__: 512)
    _, classifier = load(ModelSettings(name=str(checkpoint("distilbert")), lanes=lanes), asked)
    classifier.warm_up()
    assert classifier.card.forward_tokens == found


def test_bfloat16_stays_near_float32(folder: Path) -> None:
    """Probabilities come out in float32: bfloat16's own could sum to 1.004."""
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
def test_auto_is_bfloat16_only_where_it_is_computed(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], chosen: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert placement.choose_dtype("auto", "cpu") is chosen
    assert placement.choose_dtype("float32", "cpu") is torch.float32
    assert placement.choose_dtype("bfloat16", "cpu") is torch.bfloat16


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    chosen = [placement.choose_device(wanted) for wanted in ("auto", "cpu", "cuda")]
    assert chosen == ["cuda", "cpu", "cuda"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert placement.choose_device("auto") == "cpu"
    with pytest.raises(SettingsError, match=r"model\.device"):
        placement.choose_device("cuda")


@pytest.mark.usefixtures("threads")
def test_threads_hold_for_the_infer_thread_too(checkpoint: Callable[[Architecture], Path]) -> None:
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
        """A model that gives NaN for the word "hate" alone."""
        tokeniser, classifier = loaded(checkpoint("distilbert"))
        weights = dict(classifier.forward._model.named_parameters())  # type: ignore[attr-defined]
        weights["distilbert.embeddings.word_embeddings.weight"].data[5223] = float("nan")
        return tokeniser, classifier

    def test_no_result_is_given_that_is_no_number(
        self, broken: tuple[TransformersTokeniser, Any]
    ) -> None:
        with pytest.raises(FloatingPointError, match="not a finite number"):
            label(broken, ["Fine.", "I hate this so much!"])

    def test_the_culprits_mates_can_be_labelled(
        self, broken: tuple[TransformersTokeniser, Any]
    ) -> None:
        assert len(label(broken, ["Fine.", "I love this."])) == 2

    def test_warming_up_finds_a_model_that_fails_on_everything(
        self, broken: tuple[TransformersTokeniser, Any]
    ) -> None:
        _, classifier = broken
        classifier.warm_up()
        dict(classifier.forward._model.named_parameters())["classifier.bias"].data[:] = float("inf")
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
            MemoryError(),
        ],
    )
    def test_it_is_told_from_other_errors(
        self,
        model: tuple[TransformersTokeniser, Any],
        error: Exception,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        def fail(**_: object) -> None:
            raise error

        monkeypatch.setattr(model[1].forward._model, "forward", fail)
        with pytest.raises(
            OutOfMemory, match="a pass of 2 texts with 12 tokens does not fit the cpu"
        ):
            label(model, ["I love this.", "I hate this."])
        with pytest.raises(ModelUnavailable, match="fails on plain texts"):
            model[1].warm_up()

    def test_the_processor_s_allocator_says_it_in_its_own_way(
        self, model: tuple[TransformersTokeniser, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """More memory is asked for than there are addresses; what held on to tensors is gone."""

        def forward(**_: object) -> None:
            torch.empty(10**15)

        monkeypatch.setattr(model[1].forward._model, "forward", forward)
        with pytest.raises(OutOfMemory) as raised:
            label(model, ["Fine."])
        assert raised.value.__context__ is None

    def test_another_fault_of_the_engine_stays_what_it_is(
        self, model: tuple[TransformersTokeniser, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(**_: object) -> None:
            raise RuntimeError("a shape is wrong")

        monkeypatch.setattr(model[1].forward._model, "forward", fail)
        with pytest.raises(RuntimeError, match="shape"):
            label(model, ["Fine."])


def test_padding_is_on_the_right_and_masked() -> None:
    ids, mask = padded([(1, 2, 3), (4,)], pad_id=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]


def test_softmax_and_sigmoid_stand_extreme_logits() -> None:
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
