"""What a bench is fed: texts, arrivals, and what it says of the machine."""

from __future__ import annotations

import statistics
from itertools import pairwise
from pathlib import Path

import pytest

from worker.bench.arrivals import arrivals
from worker.bench.machine import processor
from worker.bench.plot import require_plotting
from worker.bench.texts import read_texts, repeated
from worker.cli import main as command
from worker.errors import SettingsError


def test_arrivals_come_at_random_and_always_the_same() -> None:
    """A Poisson process: gaps of the mean 1 / rate, that deviate by as much."""
    dues = list(arrivals(rate=50, seconds=200))
    gaps = [later - earlier for earlier, later in pairwise(dues)]
    assert dues == list(arrivals(rate=50, seconds=200))
    assert dues[-1] < 200
    assert statistics.mean(gaps) == pytest.approx(1 / 50, rel=0.05)
    assert statistics.stdev(gaps) == pytest.approx(1 / 50, rel=0.1)


def test_texts_are_lines_that_hold_something(tmp_path: Path) -> None:
    """Blank lines are none; a separator that is no line's end stays in its text."""
    path = tmp_path / "texts.txt"
    path.write_text("one\r\n\n  \nt\u2028wo\n", encoding="utf-8")
    assert read_texts(path) == ["one", "t\u2028wo"]


@pytest.mark.parametrize("content", [None, b"", b" \n\n", b"caf\xe9\n"])
def test_a_file_without_texts_is_refused(tmp_path: Path, content: bytes | None) -> None:
    """Missing, empty, blank or of another encoding: each says what to give."""
    path = tmp_path / "texts.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="one text a line"):
        read_texts(path)


def test_texts_are_taken_evenly_or_again() -> None:
    """More than wanted are thinned out, fewer come in turns."""
    assert repeated(["a", "b", "c", "d"], 2) == ["a", "c"]
    assert repeated(["a", "b"], 5) == ["a", "b", "a", "b", "a"]


def test_the_processor_is_named_with_what_speeds_it_up(tmp_path: Path) -> None:
    """The kernel's list, without what does not matter here."""
    path = tmp_path / "cpuinfo"
    path.write_text("processor\t: 0\nmodel name\t: A Chip\nflags\t\t: fpu avx2 amx_bf16 sse\n")
    assert processor(path) == ("A Chip", ("avx2", "amx_bf16"))
    assert processor(tmp_path / "none")[1] == ()


def test_a_plot_that_can_t_be_drawn_is_refused_before_anything_is_measured(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unknown format; a library that is missing, with the extra that brings it."""
    assert command.main(["bench", "--plot", "latency.txt"]) == 2
    assert ".svg" in capsys.readouterr().err
    monkeypatch.setattr("worker.bench.plot.find_spec", lambda _: None)
    with pytest.raises(SettingsError, match=r"streamlabel\[bench\]"):
        require_plotting(Path("latency.svg"))
