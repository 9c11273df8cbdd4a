"""One line of a terminal that shows how far a command has read a topic.

Owns: the last line of standard error, while a command reads.
Thread: main.
Must not import: torch, transformers or kafka.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


def progress_line() -> Callable[[str, int, int], None]:
    """Return a callback that keeps one line of a terminal up to date.

    It takes a topic, the number of records read, and the number of offsets.
    """

    def show(topic: str, done: int, total: int) -> None:
        print(f"\r\033[K{topic}: {done:,} of {total:,}", end="", file=sys.stderr, flush=True)

    def ignore(topic: str, done: int, total: int) -> None:
        """Print nothing: standard error is not a terminal."""

    return show if sys.stderr.isatty() else ignore


def clear_progress() -> None:
    """Remove the line."""
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
