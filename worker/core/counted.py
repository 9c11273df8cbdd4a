"""Counted nouns in messages: "1 partition", "2 partitions".

Owns: nothing.
Thread: any.
Must not import: anything.
"""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """Return the number, with thousands separators, and the noun, with an s unless it is one."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
