"""Counted nouns in messages: "1 partition", "2 partitions".

Owns: nothing.
Thread: any.
Must not import: anything.
"""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return the number with the noun in singular or plural.

    Args:
        number: how many; printed with thousands separators.
        noun: the singular.
        plural: the plural, unless it is the singular with an s.
    """
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"
