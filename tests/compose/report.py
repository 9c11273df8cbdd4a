"""Prints the steps of a proof as they end: seconds, what was done, figures."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import TextIO

from worker.clock import SystemClock

Note = Callable[[str], None]


class Report:
    """Prints a line when a step ends, and its figures under it."""

    def __init__(self, stream: TextIO = sys.stdout) -> None:
        self._stream, self._clock = stream, SystemClock()

    def say(self, line: str) -> None:
        """Print a line."""
        print(line, file=self._stream, flush=True)

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[Note]:
        """Time a step, and give a function that notes one of its figures."""
        notes: list[str] = []
        began, outcome = self._clock.monotonic(), "FAILED"
        try:
            yield notes.append
            outcome = ""
        finally:
            took = self._clock.monotonic() - began
            self.say(f"{took:6.1f} s  {title} {outcome}".rstrip())
            for note in notes:
                self.say(f"            {note}")
