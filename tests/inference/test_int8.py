"""8-bit integers: near float32, judged by texts, and only where the processor has them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from torch import nn

from tests.support.models import Architecture
from worker.errors import SettingsError
from worker.inference import int8, int8_gate, placement
from worker.inference.int8 import Int8Layer
from worker.inference.int8_gate import FEWEST, Int8Verdict, built_in_texts, read_calibration_texts
from worker.inference.linears import PrepackedLinear
from worker.inference.loading import load
from worker.settings import ModelSettings
from worker.settings import load as load_settings

pytestmark = pytest.mark.usefixtures("offline")

TEXTS = ["I hate this so much!", "Fine.", "rain on a wonderful train " * 4, "ok"]


def loaded(name: Path | str, **more: Any) -> Any:
    chosen = {"device": "cpu", "dtype": "int8", "lanes": 1} | more
    return load(ModelSettings.model_validate({"name": str(name)} | chosen), 4096)


def labelled(model: Any, texts: list[str]) -> torch.Tensor:
    tokeniser, classifier = model
    (whole,) = tokeniser.tokenise(texts)
    table = torch.tensor([p.probabilities for p in classifier.predict(whole)])
    return table[torch.tensor(whole.positions).argsort()]


@pytest.fixture
def lenient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept the random weights of a tiny model, whose labels a small change may alter."""
    monkeypatch.setattr(int8_gate, "AGREEMENT", 0.9)
    monkeypatch.setattr(int8_gate, "MEAN", 0.05)


@pytest.fixture
def capable() -> None:
    """Skip the test on a machine that int8 rejects; others cover the rejection."""
    if not int8.supported():
        pytest.skip("this processor has no products of bytes")


class TestCalibrationTexts:
    def test_they_are_the_lines_that_are_not_blank(self, tmp_path: Path) -> None:
        file = tmp_path / "texts.txt"
        lines = [f"text {number}" for number in range(FEWEST)]
        file.write_text("\n\n".join([*lines, lines[0], " "]), "utf-8")
        assert read_calibration_texts(file) == lines

    @pytest.mark.parametrize("content", ["", "only one text\n", "the same\n" * FEWEST])
    def test_too_few_are_rejected(self, tmp_path: Path, content: str) -> None:
        file = tmp_path / "texts.txt"
        file.write_text(content, "utf-8")
        with pytest.raises(SettingsError, match=rf"texts\.txt has [01] different .* {FEWEST}"):
            read_calibration_texts(file)

    def test_a_file_that_cannot_be_read_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(SettingsError, match=r"calibration_texts: can't read .*absent"):
            read_calibration_texts(tmp_path / "absent")
        (tmp_path / "bytes").write_bytes(b"\xff\xfe\xff")
        with pytest.raises(SettingsError, match="UTF-8"):
            read_calibration_texts(tmp_path / "bytes")

    def test_they_need_int8(self, tmp_path: Path) -> None:
        chosen = {"model.calibration_texts": str(tmp_path), "model.dtype": "float32"}
        with pytest.raises(SettingsError, match=r"calibration_texts needs model\.dtype = 'int8'"):
            load_settings(chosen, None, environ={})

    @pytest.mark.parametrize("dtype", ["int8", "auto-int8"])
    def test_int8_does_not_run_in_openvino(self, dtype: str) -> None:
        chosen = {"model.engine": "openvino", "model.dtype": dtype}
        with pytest.raises(SettingsError, match=rf"model\.dtype = '{dtype}' computes in torch"):
            load_settings(chosen, None, environ={})

    def test_the_built_in_ones_differ_and_are_many(self) -> None:
        texts = built_in_texts()
        assert len(set(texts)) == len(texts) >= FEWEST


class TestVerdict:
    def test_it_counts_labels_that_change(self) -> None:
        reference = torch.tensor([[0.4, 0.6], [0.9, 0.1]])
        verdict = Int8Verdict.of(torch.tensor([[0.6, 0.4], [0.9, 0.1]]), reference, "softmax")
        assert (verdict.agreement, verdict.passes) == (0.5, False)
        assert (verdict.mean, verdict.largest) == pytest.approx((0.1, 0.2))
        assert Int8Verdict.of(reference, reference, "sigmoid").passes

    def test_a_result_that_is_not_a_number_fails(self) -> None:
        reference = torch.tensor([[0.4, 0.6]])
        assert not Int8Verdict.of(reference * torch.nan, reference, "softmax").passes

    @pytest.mark.parametrize(("texts", "agreement", "least"), [(25, 1.0, 0.887), (428, 1.0, 0.993)])
    def test_few_texts_prove_little(self, texts: int, agreement: float, least: float) -> None:
        """The rule of three: without a failure in n texts, at most 3 in n fail."""
        verdict = Int8Verdict(texts, agreement, 0.0, 0.0)
        assert verdict.agreement_at_least == pytest.approx(least, abs=1e-3)


@pytest.mark.parametrize(
    ("capabilities", "error"),
    [({"avx2": True}, "lacks products of bytes"), ({}, "lacks products of bytes")],
)
def test_a_processor_without_such_products_is_rejected(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], error: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    with pytest.raises(SettingsError, match=rf"model\.dtype = 'int8', but .*{error}.*use auto"):
        placement.tries_int8("int8", "cpu")
    assert not placement.tries_int8("auto-int8", "cpu")


def test_a_gpu_is_rejected() -> None:
    with pytest.raises(SettingsError, match=r"model\.dtype = 'int8', but the device is cuda"):
        placement.tries_int8("int8", "cuda")
    assert not placement.tries_int8("auto-int8", "cuda")
    assert not placement.tries_int8("auto", "cpu")


@pytest.mark.usefixtures("capable")
class TestLayer:
    def test_a_linear_layer_with_outliers_stays_near_float32(self) -> None:
        torch.manual_seed(0)
        layer, rows = Int8Layer(nn.Linear(64, 48)), torch.randn(200, 64)
        rows[:, 3] = rows[:, 3] * 50 + 400  # a channel far from the others, and from 0
        with torch.no_grad():
            exact = layer(rows)
            layer.quantise()
            error = (layer(rows) - exact).abs().mean() / exact.std()
        assert 0 < error < 0.02
        layer.settle()
        assert layer.first is None

    def test_a_feed_forward_network_with_an_outlier_stays_near_float32(self) -> None:
        torch.manual_seed(0)
        first, second = nn.Linear(64, 256), nn.Linear(256, 64)
        with torch.no_grad():
            first.weight[5] *= 200
        layer, rows = Int8Layer(first, second), torch.randn(200, 64)
        with torch.no_grad():
            exact = layer(rows)
            layer.quantise()
            assert (layer(rows) - exact).abs().mean() / exact.std() < 0.02
            with layer.released():
                torch.testing.assert_close(layer(rows), exact)
            layer.release(torch.bfloat16)
            assert (layer(rows) - exact).abs().mean() / exact.std() < 0.02


@pytest.mark.usefixtures("capable", "lenient")
class TestModel:
    @pytest.mark.parametrize("architecture", ["distilbert", "bert", "roberta", "modernbert"])
    def test_labels_agree_with_float32(
        self, checkpoint: Callable[[Architecture], Path], architecture: Architecture
    ) -> None:
        name = checkpoint(architecture)
        model = loaded(name)
        assert model[1].card.dtype.startswith("int8")
        exact = labelled(loaded(name, dtype="float32"), TEXTS)
        assert (labelled(model, TEXTS) - exact).abs().max() < 0.2

    def test_lanes_and_neighbours_change_nothing(
        self, checkpoint: Callable[[Architecture], Path]
    ) -> None:
        model = loaded(checkpoint("bert"))
        texts = [" ".join(["rain"] * n) for n in range(1, 41)]
        together = labelled(model, texts)
        alone = torch.cat([labelled(model, [text]) for text in texts])
        torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)
        lanes = labelled(loaded(checkpoint("bert"), lanes=2, threads=2), texts)
        torch.testing.assert_close(lanes, together, atol=1e-5, rtol=0)

    def test_few_numbers_of_rows_reach_a_layer(
        self, checkpoint: Callable[[Architecture], Path]
    ) -> None:
        model, rows = loaded(checkpoint("bert")), set()
        for layer in model[1].forward._model.modules():
            if isinstance(layer, Int8Layer):
                layer.register_forward_hook(lambda _, inputs, __: rows.add(inputs[0][0].shape[0]))
        for count in range(1, 100):
            labelled(model, ["rain"] * count)
        assert 1 < len(rows) <= 24

    def test_a_layer_that_errs_too_much_is_released(
        self, checkpoint: Callable[[Architecture], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Its outputs are wrong by far, as if an outlier had stretched its range."""
        plain = Int8Layer.quantise

        def quantise(layer: Int8Layer) -> None:
            plain(layer)
            if layer.second is not None:
                layer._run = lambda rows: rows * -5.0

        monkeypatch.setattr(Int8Layer, "quantise", quantise)
        with capture_logs() as lines:
            _, classifier = loaded(checkpoint("bert"))
        (line,) = [line for line in lines if line["event"] == "int8 agrees with float32"]
        (name,) = line["left"]
        assert name.endswith("contract")
        assert "1 of" in classifier.card.dtype

    def test_a_model_that_errs_everywhere_falls_back(
        self, checkpoint: Callable[[Architecture], Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(int8_gate, "MEAN", 1e-9)
        with capture_logs() as lines:
            _, classifier = loaded(checkpoint("distilbert"))
        assert classifier.card.dtype in ("float32", "bfloat16")
        (warning,) = [line for line in lines if line["event"].startswith("int8 not used")]
        assert warning["mean_difference"] > 1e-9
        layers = list(classifier.forward._model.modules())
        assert any(isinstance(layer, nn.Linear | PrepackedLinear) for layer in layers)

    @pytest.mark.parametrize(("seconds", "chosen"), [((2.0, 1.0), True), ((1.0, 2.0), False)])
    def test_auto_int8_takes_it_only_if_it_is_faster(
        self,
        checkpoint: Callable[[Architecture], Path],
        monkeypatch: pytest.MonkeyPatch,
        seconds: tuple[float, float],
        chosen: bool,
    ) -> None:
        times = iter(seconds)
        monkeypatch.setattr("worker.inference.int8_choice.seconds_of", lambda *_: next(times))
        _, classifier = loaded(checkpoint("distilbert"), dtype="auto-int8")
        assert classifier.card.dtype.startswith("int8") is chosen
