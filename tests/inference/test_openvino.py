"""The engine `openvino`: the same results as torch, kept on disk, and torch where it can't run."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from structlog.testing import capture_logs

from tests.support.models import Architecture, Special, make_checkpoint
from worker.core.records import ModelInput
from worker.errors import SettingsError
from worker.inference import openvino_model, openvino_pass
from worker.inference.fastest import faster
from worker.inference.loading import load
from worker.inference.self_check import TOLERANCE
from worker.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("offline")

Loader = Callable[..., Any]
LENGTHS = ([1], [64], [3] * 40, [64, 9, 1, 33, 2, 2], list(range(60, 4, -1)), [5, 64, 7, 8] * 6)


@pytest.fixture
def loaded(tmp_path: Path) -> Loader:
    """Return the classifier of a checkpoint, with converted models kept in `tmp_path`."""

    def run(folder: Path | str, **options: Any) -> Any:
        options = {"dtype": "float32", "engine": "openvino", "cache_dir": tmp_path} | options
        return load(ModelSettings(name=str(folder), **options))[1]

    return run


def rows_of(lengths: Sequence[int], seed: int = 0) -> ModelInput:
    """Return ids of every tiny vocabulary, RoBERTa's padding id among them."""
    generator = torch.Generator().manual_seed(seed)
    ids = [tuple(torch.randint(0, 250, (n,), generator=generator).tolist()) for n in lengths]
    return ModelInput(tuple(ids), tuple(range(len(ids))), (False,) * len(ids))


def probabilities(classifier: Any, texts: ModelInput) -> torch.Tensor:
    return torch.tensor([prediction.probabilities for prediction in classifier.predict(texts)])


@pytest.mark.parametrize(
    ("architecture", "pads"),
    [
        ("bert", False),
        ("distilbert", False),
        ("electra", False),
        ("roberta", False),
        ("xlm-roberta", False),
        ("modernbert", False),
        ("modernbert-mean", False),
        ("gpt2", True),
    ],
)
def test_every_text_has_the_probabilities_of_torch(
    architecture: str, pads: bool, tmp_path: Path, loaded: Loader
) -> None:
    kind: Any = architecture.removesuffix("-mean")
    special = {"classifier_pooling": "mean"} if kind != architecture else {}
    special |= {"pad_token_id": 256} if kind == "gpt2" else {}
    folder = make_checkpoint(tmp_path / "model", architecture=kind, **special)
    openvino, torch_pass = loaded(folder), loaded(folder, engine="padded")
    card = openvino.card
    assert (card.engine, card.dtype, card.device, card.pads) == ("openvino", "float32", "cpu", pads)
    for seed, lengths in enumerate(LENGTHS):
        texts = rows_of(lengths, seed)
        torch.testing.assert_close(
            probabilities(openvino, texts), probabilities(torch_pass, texts), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_bundled_model(dtype: str, threads: int, loaded: Loader) -> None:
    before = torch.get_num_threads()
    try:
        settings = ModelSettings(name="bundled", engine="padded", dtype="float32")
        tokeniser, reference = load(settings)
        openvino = loaded(
            "bundled",
            dtype=dtype,
            threads=threads,
            cache_dir=settings.cache_dir,
        )
        openvino.warm_up()
    finally:
        torch.set_num_threads(before)
    (texts,) = tokeniser.tokenise(["what a day", "I hate this so much!", "so good " * 90])
    tolerance = TOLERANCE[getattr(torch, openvino.card.dtype)]
    torch.testing.assert_close(
        probabilities(openvino, texts), probabilities(reference, texts), atol=tolerance, rtol=0
    )


def test_the_sliding_window_of_long_texts(tmp_path: Path, loaded: Loader) -> None:
    folder = make_checkpoint(tmp_path / "model", architecture="modernbert", max_tokens=600)
    texts = rows_of([600, 300, 20, 300])
    torch.testing.assert_close(
        probabilities(loaded(folder), texts),
        probabilities(loaded(folder, engine="padded"), texts),
        atol=1e-5,
        rtol=0,
    )


def test_a_converted_model_is_kept_and_used_again(
    checkpoint: Callable[[Architecture], Path],
    tmp_path: Path,
    loaded: Loader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = loaded(checkpoint("bert"))
    (kept,) = (tmp_path / "openvino").iterdir()
    assert kept.stat().st_mode & 0o077 == 0
    monkeypatch.setattr("worker.inference.openvino_inputs.convert", must_not_run)
    texts = rows_of([9, 5])
    assert torch.equal(
        probabilities(first, texts), probabilities(loaded(checkpoint("bert")), texts)
    )


def must_not_run(*_: object) -> None:
    raise AssertionError("converted again")


@pytest.mark.parametrize("damage", ["cut", "changed", "emptied", "no hashes"])
def test_a_damaged_model_is_converted_again(
    damage: str, checkpoint: Callable[[Architecture], Path], tmp_path: Path, loaded: Loader
) -> None:
    texts = rows_of([9, 5])
    expected = probabilities(loaded(checkpoint("bert")), texts)
    (kept,) = (tmp_path / "openvino").iterdir()
    weights = kept / "model.bin"
    content = weights.read_bytes()
    if damage == "cut":
        weights.write_bytes(content[:1000])
    elif damage == "changed":
        weights.write_bytes(content[:-4] + b"\0\0\0\1")
    elif damage == "emptied":
        (kept / "model.xml").write_text("")
    else:
        (kept / "sha256.json").unlink()
    with capture_logs() as logs:
        assert torch.equal(probabilities(loaded(checkpoint("bert")), texts), expected)
    assert [line["event"] for line in logs if line["log_level"] == "warning"] == [
        "kept model of OpenVINO can't be used: converting it again"
    ]
    assert weights.read_bytes() == content
    assert [folder.name for folder in (tmp_path / "openvino").iterdir()] == [kept.name]


def test_other_weights_are_another_model(tmp_path: Path, loaded: Loader) -> None:
    texts = rows_of([9, 5])
    first, second = (
        probabilities(loaded(make_checkpoint(tmp_path / str(seed), seed=seed)), texts)
        for seed in (1, 2)
    )
    assert not torch.allclose(first, second)
    assert len(list((tmp_path / "openvino").iterdir())) == 2


def test_a_model_replaces_that_of_an_earlier_version(
    checkpoint: Callable[[Architecture], Path],
    tmp_path: Path,
    loaded: Loader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = []
    for version in ("5.0", "5.1"):
        monkeypatch.setattr("transformers.__version__", version)
        loaded(checkpoint("bert"))
        kept.append({folder.name for folder in (tmp_path / "openvino").iterdir()})
    assert [len(names) for names in kept] == [1, 1]
    assert kept[0] != kept[1]


def test_a_folder_that_can_not_be_written_costs_only_time(
    checkpoint: Callable[[Architecture], Path], tmp_path: Path, loaded: Loader
) -> None:
    (tmp_path / "openvino").write_text("a file")
    with capture_logs() as logs:
        assert loaded(checkpoint("bert")).card.engine == "openvino"
    assert any("can't be kept: each start will convert it" in line["event"] for line in logs)


@pytest.mark.parametrize(
    ("architecture", "reason"),
    [
        ("gpt2", "the model has no padding id"),
        ("xlm", "OpConversionFailure"),
    ],
)
def test_torch_runs_a_model_that_can_not_be_converted(
    architecture: Architecture | Special, reason: str, tmp_path: Path, loaded: Loader
) -> None:
    folder = make_checkpoint(tmp_path / "model", architecture=architecture)
    with capture_logs() as logs:
        assert loaded(folder).card.engine != "openvino"
    (line,) = (line for line in logs if line["event"].startswith("OpenVINO can't run"))
    assert line["log_level"] == "warning"
    assert reason in line["reason"]


def test_torch_runs_a_model_that_openvino_computes_otherwise(
    tmp_path: Path, loaded: Loader
) -> None:
    folder = make_checkpoint(tmp_path / "model", architecture="yoso")
    with capture_logs() as logs:
        assert loaded(folder).card.engine != "openvino"
    assert any(
        line["event"].startswith("forward pass differs") and line["engine"] == "openvino"
        for line in logs
    )


def test_without_the_package_the_error_names_the_extra(
    checkpoint: Callable[[Architecture], Path], loaded: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino_pass, "installed", lambda: False)
    with pytest.raises(SettingsError, match=r"pip install 'streamlabel\[openvino\]', or use auto"):
        loaded(checkpoint("bert"))
    assert loaded(checkpoint("bert"), engine="auto").card.engine == "packed"


def test_a_model_on_a_gpu_can_not_run_in_openvino(
    checkpoint: Callable[[Architecture], Path], loaded: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.inference.loading.choose_device", lambda _: "cuda")
    with pytest.raises(SettingsError, match=r"set model\.device = 'cpu', or use auto"):
        loaded(checkpoint("bert"))


class Engine:
    """An engine that takes a known time."""

    device, dtype, longest, pads, parallel = "cpu", "float32", None, False, False

    def __init__(self, name: str, clock: Any, *, together: float, alone: float) -> None:
        self.name, self._clock, self.passes = name, clock, 0
        self._together, self._alone = together, alone

    def __call__(self, rows: Sequence[Sequence[int]]) -> torch.Tensor:
        self.passes += 1
        self._clock.now += self._alone if len(rows) == 1 else self._together
        return torch.zeros(len(rows), 2)


class Now:
    """A clock that only engines move."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("together", "alone", "wins"),
    [
        (0.08, 0.02, True),  # more texts a second
        (0.097, 0.01, False),  # nearly as many, and one text is no faster
        (0.103, 0.005, True),  # nearly as many, and one text is faster
        (0.12, 0.001, False),  # fewer texts a second
    ],
)
def test_auto_takes_the_faster_engine(together: float, alone: float, wins: bool) -> None:
    clock: Any = Now()
    usual = Engine("packed", clock, together=0.1, alone=0.01)
    other = Engine("openvino", clock, together=together, alone=alone)
    assert faster(usual, other, [[1, 2], [3]], clock) is (other if wins else usual)


def test_slow_engines_are_compared_once() -> None:
    clock: Any = Now()
    usual = Engine("packed", clock, together=3, alone=1)
    other = Engine("openvino", clock, together=2, alone=1)
    assert faster(usual, other, [[1, 2], [3]], clock) is other
    assert (usual.passes, other.passes) == (2, 2)


def test_auto_compares_both_engines(
    checkpoint: Callable[[Architecture], Path], loaded: Loader
) -> None:
    with capture_logs() as logs:
        classifier = loaded(checkpoint("bert"), engine="auto")
    (line,) = (line for line in logs if line["event"] == "engines compared")
    assert set(line["together_ms"]) == set(line["alone_ms"]) == {"packed", "openvino"}
    assert classifier.card.engine == line["engine"]


def test_an_error_leaves_the_engine_usable(
    checkpoint: Callable[[Architecture], Path], loaded: Loader
) -> None:
    classifier = loaded(checkpoint("bert"), threads=2)
    texts = rows_of([60] * 12)
    expected = probabilities(classifier, texts)
    for lengths in ([60] * 11 + [70], [70]):  # beyond the model's positions
        with pytest.raises(RuntimeError):
            classifier.predict(rows_of(lengths))
        torch.testing.assert_close(probabilities(classifier, texts), expected)


def test_openvino_reports_nothing() -> None:
    """Its package for reports is installed with it, and must not be imported."""
    program = (
        "import sys; from worker.inference.openvino_model import openvino; openvino().Core(); "
        "print([name for name in sys.modules if 'openvino_telemetry' in name])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert json.loads(out.stdout) == []


def test_it_is_installed_here() -> None:
    assert openvino_model.installed()
