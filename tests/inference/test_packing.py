"""The packed forward pass: the results of transformers for one text at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.support.models import Architecture, make_checkpoint
from worker.errors import ModelUnavailable, SettingsError
from worker.inference import loading
from worker.inference.classifier import scores
from worker.inference.loading import load
from worker.inference.packing import LAYOUTS, CannotPack, PackedForward
from worker.inference.self_check import LONGEST, TEXTS, TOLERANCE, check_rows
from worker.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("offline")

PACKED = tuple(name for name in get_args(Architecture) if name != "gpt2")
PAD = 1  # of RoBERTa; an ordinary token for the others
LENGTHS = st.lists(st.integers(1, 64), min_size=1, max_size=12)


def model_in(folder: Path) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(folder).eval()


def rows_of(lengths: Sequence[int], seed: int = 0) -> list[tuple[int, ...]]:
    """Return ids of every tiny vocabulary, RoBERTa's padding id among them."""
    generator = torch.Generator().manual_seed(seed)
    return [tuple(torch.randint(0, 250, (n,), generator=generator).tolist()) for n in lengths]


def alone(model: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the probabilities of the library's own forward pass, one text at a time."""
    with torch.inference_mode():
        logits = [model(torch.tensor([row])).logits for row in rows]
    return torch.cat(logits).float().softmax(-1)


@pytest.fixture(scope="module", params=[*PACKED, "modernbert-mean"])
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, PackedForward]:
    """Return the same checkpoint twice: as loaded by transformers, and packed."""
    architecture = request.param.removesuffix("-mean")
    special = {"classifier_pooling": "mean"} if architecture != request.param else {}
    folder = make_checkpoint(
        tmp_path_factory.mktemp("packed"), architecture=architecture, **special
    )
    return model_in(folder), PackedForward(model_in(folder))


def test_every_layout_is_tested() -> None:
    assert len(LAYOUTS) == len(PACKED)


@settings(max_examples=10, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 1_000))
def test_other_texts_and_their_order_change_nothing(
    pair: tuple[Any, PackedForward], lengths: list[int], seed: int
) -> None:
    plain, packed = pair
    rows = rows_of(lengths, seed)
    together = scores(packed, rows, "softmax")
    torch.testing.assert_close(together, alone(plain, rows), atol=1e-5, rtol=0)


def test_a_text_longer_than_the_window(pair: tuple[Any, PackedForward]) -> None:
    plain, packed = pair
    rows = rows_of([64, 64, 17, 9, 8, 1])
    together = scores(packed, rows, "softmax")
    torch.testing.assert_close(together, alone(plain, rows), atol=1e-5, rtol=0)


def test_a_padding_token_within_a_text(pair: tuple[Any, PackedForward]) -> None:
    """RoBERTa's positions don't count it: first, last or between."""
    plain, packed = pair
    rows = [(PAD, 0, 5, 2), (0, 5, PAD, PAD, 6, 2), (0, 5, 2, PAD), (PAD,)]
    together = scores(packed, rows, "softmax")
    torch.testing.assert_close(together, alone(plain, rows), atol=1e-5, rtol=0)


def test_bfloat16_is_close_to_float32(pair: tuple[Any, PackedForward], tmp_path: Path) -> None:
    """The weights of tiny models are random, so the most probable label may differ."""
    plain, packed = pair
    rows = rows_of([40, 20, 20, 7, 1])
    plain.save_pretrained(tmp_path)
    short = PackedForward(
        AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.bfloat16).eval()
    )
    difference = scores(short, rows, "softmax") - scores(packed, rows, "softmax")
    assert difference.abs().max() < 0.03


class TestChoice:
    def test_auto_packs_every_known_architecture(
        self, checkpoint: Callable[[Architecture], Path]
    ) -> None:
        for architecture in PACKED:
            _, classifier = load(ModelSettings(name=str(checkpoint(architecture))), 4096)
            assert classifier.card.engine == "packed"

    def test_other_architectures_are_padded_and_logged(
        self, checkpoint: Callable[[Architecture], Path]
    ) -> None:
        with capture_logs() as lines:
            _, classifier = load(ModelSettings(name=str(checkpoint("gpt2"))), 4096)
        assert classifier.card.engine == "padded"
        assert any("GPT2ForSequenceClassification" in line.get("reason", "") for line in lines)

    def test_packing_that_is_set_for_another_architecture_is_rejected(
        self, checkpoint: Callable[[Architecture], Path]
    ) -> None:
        name = str(checkpoint("gpt2"))
        with pytest.raises(SettingsError, match=r"model\.engine = 'packed', but GPT2.*use auto"):
            load(ModelSettings(name=name, engine="packed"), 4096)

    def test_padding_can_be_set(self, checkpoint: Callable[[Architecture], Path]) -> None:
        _, classifier = load(ModelSettings(name=str(checkpoint("bert")), engine="padded"), 4096)
        assert classifier.card.engine == "padded"

    def test_an_encoder_configured_as_a_decoder_is_padded(self, tmp_path: Path) -> None:
        folder = make_checkpoint(tmp_path, architecture="bert", is_decoder=True)
        with pytest.raises(CannotPack, match="is a decoder"):
            PackedForward(model_in(folder))
        _, classifier = load(ModelSettings(name=str(folder)), 4096)
        assert classifier.card.engine == "padded"


class TestSelfCheck:
    """A wrong pass does not run."""

    @pytest.fixture
    def wrong(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Make positions continue from text to text, the typical mistake of packing."""
        monkeypatch.setattr(
            PackedForward, "_positions", lambda _, ids, __: torch.arange(len(ids)) % 64
        )

    @pytest.fixture
    def name(self, checkpoint: Callable[[Architecture], Path]) -> str:
        return str(checkpoint("distilbert"))

    @pytest.mark.usefixtures("wrong")
    def test_the_padded_pass_runs_instead_with_a_warning(self, name: str) -> None:
        with capture_logs() as lines:
            tokeniser, classifier = load(ModelSettings(name=name, dtype="float32"), 4096)
        (warning,) = [line for line in lines if line["log_level"] == "warning"]
        assert (warning["engine"], warning["tolerance"]) == ("packed", 1e-5)
        assert warning["difference"] > 1e-5
        assert classifier.card.engine == "padded"
        (whole,) = tokeniser.tokenise(["Fine.", "I hate this so much!"])
        table = torch.tensor([p.probabilities for p in classifier.predict(whole)])
        expected = alone(model_in(Path(name)), whole.ids)
        torch.testing.assert_close(table, expected, atol=1e-5, rtol=0)

    @pytest.mark.usefixtures("wrong")
    def test_a_wrong_pass_that_is_set_is_rejected(self, name: str) -> None:
        with pytest.raises(
            ModelUnavailable,
            match=r"differs from the reference by .* \(tolerance 1e-05\): use model\.engine = 'auto'",
        ):
            load(ModelSettings(name=name, dtype="float32", engine="packed"), 4096)

    def test_a_pass_that_fails_is_not_used(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(PackedForward, "_positions", lambda _, ids, __: ids + 10_000)
        with capture_logs() as lines:
            _, classifier = load(ModelSettings(name=name, dtype="float32"), 4096)
        assert classifier.card.engine == "padded"
        assert any("IndexError" in line.get("error", "") for line in lines)

    @pytest.mark.parametrize(("wanted", "runs"), [("auto", "float32"), ("bfloat16", "bfloat16")])
    def test_bfloat16_that_is_too_inaccurate(
        self, name: str, monkeypatch: pytest.MonkeyPatch, wanted: Any, runs: str
    ) -> None:
        """The fallback is float32, unless bfloat16 is set."""
        monkeypatch.setattr(loading, "choose_dtype", lambda *_: torch.bfloat16)
        monkeypatch.setitem(TOLERANCE, torch.bfloat16, 1e-9)
        _, classifier = load(ModelSettings(name=name, dtype=wanted), 4096)
        assert (classifier.card.engine, classifier.card.dtype) == ("padded", runs)

    def test_the_longest_text_of_the_check_exceeds_the_window(
        self, checkpoint: Callable[[Architecture], Path]
    ) -> None:
        tokenizer = AutoTokenizer.from_pretrained(checkpoint("bert"))
        rows = check_rows(tokenizer, None)
        assert len(rows) == len(TEXTS) + 1
        assert max(map(len, rows)) == LONGEST > 128
        assert min(map(len, rows)) < 5
