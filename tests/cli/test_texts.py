"""CSV columns, and texts that are the names of files."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from worker.cli.texts import column, warn_of_files
from worker.errors import StreamlabelError


def texts(file: Path | str, name: str | None = "text") -> list[str]:
    return [text for batch in column(str(file), name) for text in batch]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "posts.csv"


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_column_is_read(file: Path, delimiter: str) -> None:
    """Quotes, line breaks in a field, a byte order mark, rows that are too short."""
    rows = ["id,text,lang", '1,"one, two\nthree",en', "2", "3,four,en"]
    file.write_text("\ufeff" + "\n".join(rows).replace(",", delimiter), encoding="utf-8")
    assert texts(file) == [f"one{delimiter} two\nthree", "", "four"]


def test_the_only_column_needs_no_name(file: Path) -> None:
    file.write_text("text\none\ntwo\n")
    assert texts(file, None) == ["one", "two"]


def test_a_long_file_is_read_in_batches(file: Path) -> None:
    file.write_text("text\n" + "one\n" * 1000)
    sizes = [len(batch) for batch in column(str(file), "text")]
    assert (sum(sizes), max(sizes)) == (1000, 256)


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"id,text\n1,one\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    assert texts("-") == ["one"]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"id,body\n", "text", r"has no column 'text'; its columns are: id, body"),
        (b"id,body\n", None, r"has several columns: choose one with --column \(id, body\)"),
        (b"", "text", "has no header"),
        (b"text\nfine\ncaf\xe9\n", "text", "is not UTF-8, somewhere after line"),
        (b'text\n"' + b"x" * 200_000, "text", "after line 0: field larger than field limit"),
    ],
)
def test_an_unusable_file_is_refused(
    file: Path, content: bytes, name: str | None, message: str
) -> None:
    file.write_bytes(content)
    with pytest.raises(StreamlabelError, match=message) as refused:
        texts(file, name)
    assert str(file) in str(refused.value)


def test_a_missing_file_is_named(file: Path) -> None:
    with pytest.raises(StreamlabelError, match=r"can't read .*posts\.csv: No such file"):
        texts(file)


@pytest.mark.parametrize("text", ["a fine day", "x" * 10_000, "a\0b", "line\nbreak", "."])
def test_other_texts_get_no_warning(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    warn_of_files([text])
    assert capsys.readouterr().err == ""
