"""Freed memory returns to the system, on a C library that can do that."""

from __future__ import annotations

import ctypes

import pytest

from worker import heap
from worker.limits import own_memory

MIB = 2**20


def test_freed_blocks_below_others_are_returned() -> None:
    """Blocks below glibc's threshold for mmap (128 KiB), with one above them that stays."""
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    blocks = [libc.malloc(100_000) for _ in range(1000)]
    for block in blocks:
        ctypes.memset(block, 1, 100_000)
    *freed, last = blocks
    for block in freed:
        libc.free(block)
    before = own_memory()
    assert heap.return_free_memory()
    after = own_memory()
    libc.free(last)
    assert before is not None
    assert after is not None
    assert before - after > 50 * MIB


def test_another_c_library_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_LIBC", object())
    assert not heap.return_free_memory()
