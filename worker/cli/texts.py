"""The texts of `streamlabel classify`: lines of standard input, or a column of a CSV file.

Owns: the file that it reads.
Thread: main.
Must not import: torch or transformers.
"""

from __future__ import annotations

import csv
import io
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, Final, TextIO

from worker.core.counted import counted
from worker.core.visible import blank, excerpt, visible
from worker.errors import StreamlabelError

STDIN: Final = "-"

_BLOCK: Final = 65_536  # bytes; the capacity of a pipe on Linux
_ROWS: Final = 256  # rows labelled together
_DELIMITERS: Final = ",;\t"
_NAMES, _NAME_CHARACTERS = 30, 60  # columns named in an error, and characters of each
_LONGEST_NAME: Final = 255  # characters of a file's name


def lines(stream: BinaryIO) -> Iterator[list[str]]:
    """Yield the lines that have arrived, block by block: neither wait for more nor keep any."""
    rest = b""
    while block := stream.read1(_BLOCK):  # type: ignore[attr-defined] # of every buffered stream
        *whole, rest = (rest + block).split(b"\n")
        yield [line.decode(errors="replace") for line in whole]
    yield [rest.decode(errors="replace")] if rest else []


def check_column(file: str, name: str | None) -> None:
    """Raise a StreamlabelError if a CSV file can't be opened or lacks the column."""
    if file != STDIN:
        next(column(file, name), None)


def column(file: str, name: str | None) -> Iterator[list[str]]:
    """Yield the texts of a CSV file's column, some rows at a time.

    Args:
        file: a path, or `-` for standard input; UTF-8, separated by commas, semicolons or tabs.
        name: the column; None for the only one.

    Raises:
        StreamlabelError: the file can't be read, is not UTF-8, or has no such column.
    """
    with opened_text(file) as opened:
        texts = _column(file, opened, name)
        while batch := list(islice(texts, _ROWS)):
            yield batch


def opened_text(file: str) -> AbstractContextManager[TextIO]:
    """Open a file, or standard input for `-`, as UTF-8 with or without a byte order mark.

    Raises:
        StreamlabelError: the file can't be read.
    """
    if file == STDIN:
        return nullcontext(io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8-sig", newline=""))
    try:
        return Path(file).open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise StreamlabelError(f"can't read {file}: {error.strerror}") from None


def _column(file: str, opened: TextIO, name: str | None) -> Iterator[str]:
    rows = csv_rows(file, opened)
    at = position(file, next(rows)[1], name)
    for _, row in rows:
        yield row[at] if at < len(row) else ""


def csv_rows(file: str, opened: TextIO) -> Iterator[tuple[int, list[str]]]:
    """Yield the header of a CSV file, empty if it has none, and its rows, each with its last line.

    Raises:
        StreamlabelError: the file can't be read, or is not UTF-8.
    """
    number = 0
    try:
        header = opened.readline()
        delimiter = max(_DELIMITERS, key=header.count)
        rows = csv.reader(chain([header], opened), delimiter=delimiter)
        yield 1, next(rows, [])
        for row in rows:
            number = rows.line_num
            yield number, row
    except UnicodeDecodeError:
        raise StreamlabelError(
            f"{file} is not UTF-8, somewhere after line {number}: convert it, for example with "
            "`iconv -f WINDOWS-1252 -t UTF-8`"
        ) from None
    except (OSError, csv.Error) as error:
        raise StreamlabelError(f"can't read {file} after line {number}: {error}") from None


def position(file: str, names: Sequence[str], name: str | None, option: str = "--column") -> int:
    """Return the position of a column in the header.

    Args:
        file: named in errors.
        names: the header.
        name: the column; None for the only one.
        option: the option that chooses it.

    Raises:
        StreamlabelError: there is no header, no such column, or more than one to choose from.
    """
    if not names:
        raise StreamlabelError(f"{file} has no header: its first line must name the columns")
    if name is None and len(names) == 1:
        return 0
    if name in names:
        return names.index(name)
    shown = ", ".join(excerpt(other, _NAME_CHARACTERS) for other in names[:_NAMES])
    if name is None:
        raise StreamlabelError(f"{file} has several columns: choose one with {option} ({shown})")
    raise StreamlabelError(f"{file} has no column {name!r}; its columns are: {shown}")


def without_blanks(batches: Iterable[Sequence[str]]) -> Iterator[list[str]]:
    """Yield the texts that are not blank; report the number of the others at the end."""
    skipped = 0
    for batch in batches:
        texts = [text.rstrip("\r") for text in batch if not blank(text)]
        skipped += len(batch) - len(texts)
        if texts:
            yield texts
    if skipped:
        print(f"streamlabel: skipped {counted(skipped, 'blank text')}", file=sys.stderr)


def warn_of_files(texts: Iterable[str]) -> None:
    """Warn of each text that is the name of a file: the name is labelled, not the content."""
    for text in texts:
        if _is_file(text):
            name = visible(shlex.quote(text))
            print(
                f"streamlabel: warning: {name} is labelled as a text, though a file has that name; "
                f"to label the file:\n"
                f"  streamlabel classify --csv --column NAME {name}   # a column of a CSV file\n"
                f"  streamlabel classify - < {name}   # each line",
                file=sys.stderr,
            )


def _is_file(text: str) -> bool:
    with suppress(OSError, ValueError):
        return len(text) <= _LONGEST_NAME and Path(text).is_file()
    return False
