"""The labelled texts of `streamlabel calibrate`: files, columns, and rows that can't be used."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from worker.cli.labelled import (
    BadRow,
    Columns,
    LabelledText,
    check_labels,
    labelled_texts,
    truth_of,
)
from worker.errors import StreamlabelError

ROWS = [(2, "one, two", ("joy",)), (3, "three", ("joy", "anger")), (4, "four", ())]


def read(file: Path, columns: Columns | None = None) -> list[LabelledText | BadRow]:
    return list(labelled_texts(str(file), columns or Columns()))


@pytest.mark.parametrize("column", ["label", "labels"])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_a_csv_file_is_read(tmp_path: Path, column: str, ending: str) -> None:
    """A byte order mark, quotes, spaces around labels, a label twice, no label."""
    lines = [f"\ufeffid,text,{column}", '1,"one, two",joy', "2,three,joy | anger|joy", "3,four,"]
    file = tmp_path / "labelled.csv"
    file.write_bytes(ending.join(lines).encode())
    assert read(file) == ROWS


def test_other_columns_and_separators(tmp_path: Path) -> None:
    file = tmp_path / "labelled.csv"
    file.write_text("post;emotion;text\nhi;joy/anger;no\n")
    columns = Columns("post", "emotion", "/")
    assert read(file, columns) == [(2, "hi", ("joy", "anger"))]


def test_a_file_of_json_is_read(tmp_path: Path) -> None:
    file = tmp_path / "labelled.JSONL"
    file.write_text(
        '{"text": "one", "label": "joy"}\n\n{"text": "two", "labels": ["joy", "anger", "joy"]}\n'
    )
    assert read(file) == [(1, "one", ("joy",)), (3, "two", ("joy", "anger"))]
    file.write_text('{"post": "one", "label": "x", "emotion": "joy"}\n')
    assert read(file, Columns("post", "emotion")) == [(1, "one", ("joy",))]


def test_standard_input_is_csv(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.TextIOWrapper(io.BytesIO(b"text,label\none,joy\n"))
    monkeypatch.setattr(sys, "stdin", stream)
    assert read(Path("-")) == [(2, "one", ("joy",))]


@pytest.mark.parametrize(
    ("name", "row", "why"),
    [
        ("a.csv", "text,label\n  ,joy", "its text is blank"),
        ("a.csv", "text,label\none", "it has 1 cell of 2"),
        ("a.jsonl", '{"text": "one"', "it is not JSON"),
        ("a.jsonl", "[" * 100_000, "it is not JSON"),
        ("a.jsonl", "[]", "it is no object with a string 'text'"),
        ("a.jsonl", '{"text": 7, "label": "joy"}', "it is no object with a string 'text'"),
        ("a.jsonl", '{"text": "", "label": "joy"}', "its text is blank"),
        ("a.jsonl", '{"text": "one"}', "its 'label' or 'labels' is no string or list of them"),
        ("a.jsonl", '{"text": "one", "label": 1}', "its 'label' or 'labels' is no string"),
        ("a.jsonl", '{"text": "one", "labels": [1]}', "its 'label' or 'labels' is no string"),
    ],
)
def test_a_row_that_cannot_be_used_is_told(tmp_path: Path, name: str, row: str, why: str) -> None:
    file = tmp_path / name
    file.write_text(row)
    (found,) = read(file)
    assert isinstance(found, BadRow)
    assert found.line == row.count("\n") + 1
    assert why in found.why


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,emotion\n", "has no column 'label'; its columns are: text, emotion"),
        ("a.csv", b"body,label\n", "has no column 'text'"),
        ("a.csv", b"", "has no header"),
        ("a.csv", b"text,label\ncaf\xe9,joy\n", "is not UTF-8"),
        ("a.jsonl", b'{"text": "caf\xe9"}\n', "is not UTF-8"),
        ("missing.csv", None, "can't read .*missing.csv: No such file"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(StreamlabelError, match=message):
        read(file)


def test_the_labels_of_a_row_are_those_of_the_model() -> None:
    labels = ("anger", "joy")
    assert truth_of(LabelledText(2, "a", ("joy",)), labels, independent=False) == {1}
    assert truth_of(LabelledText(2, "a", ("joy", "anger")), labels, independent=True) == {0, 1}
    assert truth_of(LabelledText(2, "a", ()), labels, independent=True) == set()
    for many in ((), labels):
        bad = truth_of(LabelledText(7, "a", many), labels, independent=False)
        assert bad == (7, f"it has {len(many)} labels, and of this model's exactly one applies")


def test_labels_that_the_model_lacks_are_named() -> None:
    rows = [LabelledText(2, "a", ("JOY",)), LabelledText(3, "b", ("JOY", "joy"))]
    check_labels("a.csv", rows, ("joy", "JOY"))
    message = r"a.csv has labels that the model lacks: 'JOY' \(2 rows\); the model's labels are joy"
    with pytest.raises(StreamlabelError, match=message):
        check_labels("a.csv", rows, ("joy",))
