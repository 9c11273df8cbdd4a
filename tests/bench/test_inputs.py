"""The inputs of a bench: texts, arrival times, and the description of the machine."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from worker.bench.arrivals import arrivals
from worker.bench.machine import processor
from worker.bench.plot import require_plotting
from worker.bench.texts import drawn, read_texts, reordered, repeated
from worker.cli import main as command
from worker.errors import SettingsError


def test_arrivals_are_a_reproducible_poisson_process() -> None:
    """Mean and standard deviation of the gaps are both 1 / rate."""
    dues = list(arrivals(rate=50, seconds=200))
    gaps = [later - earlier for earlier, later in pairwise(dues)]
    assert dues == list(arrivals(rate=50, seconds=200))
    assert dues[-1] < 200
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.1)


def test_texts_are_lines_that_are_not_blank(tmp_path: Path) -> None:
    """A Unicode line separator does not end a line."""
    path = tmp_path / "texts.txt"
    path.write_text("one\r\n\n  \nt\u2028wo\n", encoding="utf-8")
    assert read_texts(path) == ["one", "t\u2028wo"]


@pytest.mark.parametrize("content", [None, b"", b" \n\n", b"caf\xe9\n"])
def test_a_file_without_texts_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """The error of a missing, empty, blank or badly encoded file says what to give."""
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="one text a line"):
        read_texts(path)


def test_texts_are_selected_evenly_or_repeated() -> None:
    assert repeated(["a", "b", "c", "d"], 2) == ["a", "c"]
    assert repeated(["a", "b"], 5) == ["a", "b", "a", "b", "a"]


def test_each_turn_draws_other_texts_of_the_same_lengths() -> None:
    """Two turns share no text while there are enough; each has short and long ones."""
    texts = ["x" * length + str(number) for length in (1, 50, 100) for number in range(10, 40)]
    turns = [drawn(texts, 30, turn) for turn in range(3)]
    assert sorted(text for turn in turns for text in turn) == sorted(texts)
    means = [statistics.mean(map(len, turn)) for turn in turns]
    assert max(means) - min(means) < 1
    assert turns[0] == drawn(texts, 30, 0)
    assert turns[0] != sorted(turns[0], key=len)


def test_few_texts_are_repeated_in_another_order_each_turn() -> None:
    texts = ["a", "b", "c", "d", "e", "f"]
    first, second = drawn(texts, 12, 1), drawn(texts, 12, 2)
    assert sorted(first) == sorted(second) == sorted(texts * 2)
    assert first != second
    assert sorted(reordered(texts, 1)) == texts
    assert reordered(texts, 1) != reordered(texts, 2)


def test_the_processor_is_named_with_its_matrix_features(tmp_path: Path) -> None:
    """Other features of the kernel's list are left out."""
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: A Chip\nflags\t\t: fpu avx2 amx_bf16 sse\n")
    assert processor(path) == ("A Chip", ("avx2", "amx_bf16"))
    assert processor(tmp_path / "none")[1] == ()


def test_an_impossible_plot_is_refused_before_measuring(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The errors name the known formats, and the extra that installs matplotlib."""
    assert command.main(["bench", "--plot", "latency.txt"]) == 2
    assert ".svg" in capsys.readouterr().err
    monkeypatch.setattr("worker.bench.plot.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"streamlabel\[bench\]"):
        require_plotting(Path("latency.svg"))
