"""The labelled texts of `streamlabel calibrate`: rows of a CSV file, or objects of a JSON file.

Owns: the file that it reads, and what makes a row unusable.
Thread: main.
Must not import: torch or transformers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from worker.cli.texts import csv_rows, opened_text, position
from worker.core.counted import counted
from worker.core.visible import blank, excerpt
from worker.errors import StreamlabelError

_JSON: Final = (".jsonl", ".ndjson", ".json")
_LABELS: Final = ("label", "labels")  # names of the column that is looked for
_CHARACTERS, _NAMES = 60, 30  # of a label in an error, and labels


class Columns(NamedTuple):
    """The places of texts and labels in a file.

    Attributes:
        text: the column, or the member of each object.
        labels: the same of the labels; None for `label` or `labels`, whichever exists.
        separator: between the labels of one cell.
    """

    text: str = "text"
    labels: str | None = None
    separator: str = "|"


class LabelledText(NamedTuple):
    """A text, and the labels that people gave it.

    Attributes:
        line: its last line in the file, counted from 1.
    """

    line: int
    text: str
    labels: tuple[str, ...]


class BadRow(NamedTuple):
    """A row that can't be used, and why."""

    line: int
    why: str


def labelled_texts(file: str, columns: Columns) -> Iterator[LabelledText | BadRow]:
    """Yield each row of a file: JSON, an object a line, by its suffix; else CSV with a header.

    Args:
        file: a path, or `-` for CSV from standard input.
        columns: where a row has its text and its labels.

    Raises:
        StreamlabelError: the file can't be read, is not UTF-8, or lacks a column.
    """
    read = _json_rows if file.lower().endswith(_JSON) else _csv_rows
    with opened_text(file) as opened:
        for row in read(file, opened, columns):
            if isinstance(row, LabelledText) and blank(row.text):
                yield BadRow(row.line, "its text is blank")
            else:
                yield row


def truth_of(
    row: LabelledText, labels: Sequence[str], *, independent: bool
) -> frozenset[int] | BadRow:
    """Return the indices of a row's labels, all of which the model has.

    Args:
        row: of the file.
        labels: the model's.
        independent: whether a text may have none of them, or several.
    """
    if not independent and len(row.labels) != 1:
        why = f"it has {counted(len(row.labels), 'label')}, and of this model's exactly one applies"
        return BadRow(row.line, why)
    return frozenset(labels.index(label) for label in row.labels)


def check_labels(file: str, rows: Sequence[LabelledText], labels: Sequence[str]) -> None:
    """Raise a StreamlabelError that names the labels of a file which the model lacks."""
    used = Counter(label for row in rows for label in row.labels)
    if unknown := [label for label in used if label not in labels]:
        first = ", ".join(
            f"{excerpt(label, _CHARACTERS)!r} ({counted(used[label], 'row')})"
            for label in unknown[:_NAMES]
        )
        raise StreamlabelError(
            f"{file} has labels that the model lacks: {first}; the model's labels are "
            f"{', '.join(labels)}: rename those of the file, or the model's in decision.labels"
        )


def _csv_rows(file: str, opened: Any, columns: Columns) -> Iterator[LabelledText | BadRow]:
    rows = csv_rows(file, opened)
    _, header = next(rows)
    text = position(file, header, columns.text, "--column")
    name = columns.labels or next((name for name in _LABELS if name in header), _LABELS[0])
    labels = position(file, header, name, "--labels")
    for line, row in rows:
        if len(row) <= max(text, labels):
            yield BadRow(line, f"it has {counted(len(row), 'cell')} of {len(header)}")
        else:
            cells = (cell.strip() for cell in row[labels].split(columns.separator))
            yield LabelledText(line, row[text], tuple(dict.fromkeys(filter(None, cells))))


def _json_rows(file: str, opened: Any, columns: Columns) -> Iterator[LabelledText | BadRow]:
    try:
        for number, line in enumerate(opened, start=1):
            if line.strip():
                yield _json_row(number, line, columns)
    except UnicodeDecodeError:
        raise StreamlabelError(f"{file} is not UTF-8: convert it, for example with iconv") from None


def _json_row(number: int, line: str, columns: Columns) -> LabelledText | BadRow:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return BadRow(number, "it is not JSON")
    if not isinstance(row, dict) or not isinstance(text := row.get(columns.text), str):
        return BadRow(number, f"it is no object with a string {columns.text!r}")
    names = (columns.labels,) if columns.labels else _LABELS
    value = next((row[name] for name in names if name in row), None)
    labels = [value] if isinstance(value, str) else value
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        return BadRow(number, f"its {' or '.join(map(repr, names))} is no string or list of them")
    return LabelledText(number, text, tuple(dict.fromkeys(labels)))
