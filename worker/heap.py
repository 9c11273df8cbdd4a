"""Returns free memory to the system.

Owns: the call of glibc's `malloc_trim`.
Thread: any.
Must not import: anything of worker.
"""

from __future__ import annotations

import ctypes
from typing import Final

_LIBC: Final = ctypes.CDLL(None)


def return_free_memory() -> bool:
    """Return to the system what the C library keeps of freed memory; False if it can't.

    A model is thousands of blocks, allocated by a thread that has ended. glibc keeps the pages
    between those of other threads: a process that changed a model of 90 MiB ten times had 130 MiB
    more than after its start, and none more with this call. It takes some ten milliseconds, in
    which other threads run.
    """
    trim = getattr(_LIBC, "malloc_trim", None)  # glibc only
    return trim is not None and bool(trim(0))
