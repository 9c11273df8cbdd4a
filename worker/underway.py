"""Names the code of others that a thread runs, so that a stall can name it.

Owns: one name for each thread.
Thread: each thread writes its own name; any thread reads.
Must not import: anything of worker.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_names: dict[int, str] = {}


@contextmanager
def named(name: str) -> Iterator[None]:
    """Name what this thread runs within the `with` block."""
    thread = threading.get_ident()
    _names[thread] = name
    try:
        yield
    finally:
        del _names[thread]


def name_of(thread: int | None) -> str:
    """Return what the thread of this ident runs; empty if nothing is named."""
    return _names.get(thread, "") if thread is not None else ""
