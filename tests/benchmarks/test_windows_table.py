"""The comparison of windows with a plain loop: both agree, and the pieces are short."""

from __future__ import annotations

from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.windows import PRESETS, calls_for_a_megabyte, differences, texts
from tests.support.models import bert_tokenizer, make_checkpoint
from worker.settings import ModelSettings


def test_windows_and_truncation_equal_a_plain_loop(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "model")
    settings = ModelSettings(
        name=str(folder), max_tokens=64, dtype="float32", device="cpu", threads=1
    )
    found = list(differences(settings, texts(3)))
    assert [preset for preset, *_ in found] == [preset for preset in PRESETS for _ in range(5)]
    assert all(difference < 1e-5 for _, _, difference, _ in found)
    one_each = ("truncate", "first")  # of three texts
    assert {windows for _, name, _, windows in found if name in one_each} == {3}
    assert all(windows > 3 for _, name, _, windows in found if name not in one_each)


def test_a_megabyte_is_read_in_many_calls() -> None:
    call = calls_for_a_megabyte(AutoTokenizer.from_pretrained(bert_tokenizer()))
    assert call.calls > 100
