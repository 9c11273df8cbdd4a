"""The records of `streamlabel classify`: JSON objects or texts, one a line of a file.

Owns: the file that it reads.
Thread: main.
Must not import: torch or transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Final

from worker.cli.texts import STDIN, lines
from worker.errors import StreamlabelError

_TOGETHER: Final = 256  # records labelled together


def values_of(files: Iterable[str]) -> Iterator[tuple[bytes, ...]]:
    """Yield the lines of files that are not blank, some at a time.

    Args:
        files: paths, or `-` for standard input.

    Raises:
        StreamlabelError: a file can't be read.
    """
    for file in files:
        for batch in _lines(file):
            kept = (line.encode() for line in batch if line.strip())
            while together := tuple(islice(kept, _TOGETHER)):
                yield together


def _lines(file: str) -> Iterator[list[str]]:
    if file == STDIN:
        yield from lines(sys.stdin.buffer)
        return
    try:
        with Path(file).open("rb") as opened:
            yield from lines(opened)
    except OSError as error:
        raise StreamlabelError(f"can't read {file}: {error.strerror}") from None
