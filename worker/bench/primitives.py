"""Counts the oneDNN primitives that a computation makes.

oneDNN makes a primitive, code for one operation at one shape, when it first meets that shape, and
keeps it in a cache. A stream with ever new shapes pays for each of them.

Owns: the verbose output of oneDNN while it counts.
Thread: main, in the process that measures the engine.
Must not import: kafka.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import IO, Any, Final

from torch.backends import mkldnn

# A line of the verbose mode for each primitive that was not in the cache, see "Verbose Mode" in
# oneDNN's developer guide. Primitives inside another one are `create_nested`, and not counted.
_MADE: Final = b",primitive,create:cache_miss,"
_STDOUT: Final = 1


def primitives_made(work: Callable[[], object]) -> int | None:
    """Call `work` and return how many primitives it made, or None if this torch lacks oneDNN."""
    library: Any = mkldnn
    if not library.is_available():
        return None
    with tempfile.TemporaryFile() as output:
        with _captured(output), library.verbose(library.VERBOSE_ON_CREATION):
            work()
        output.seek(0)
        return sum(_MADE in line for line in output)


@contextlib.contextmanager
def _captured(output: IO[bytes]) -> Iterator[None]:
    """Write this process's standard output, also that of C, to a file."""
    sys.stdout.flush()
    kept = os.dup(_STDOUT)
    os.dup2(output.fileno(), _STDOUT)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, _STDOUT)
        os.close(kept)
