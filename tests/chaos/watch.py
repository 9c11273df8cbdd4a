"""A thread that watches a run for the length of a `with` block.

The verdict tells of an error that ends it early: a run that was not watched to its end does not
hold.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Self


class Watch(ABC):
    """Runs `_look` on a thread of its own.

    Args:
        name: of the thread.
        join_s: seconds within which `_look` returns at the end of the block.

    Attributes:
        error: that ended the watch early, if one did.
    """

    def __init__(self, name: str, join_s: float) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._join_s = join_s
        self.error = ""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(self._join_s)
        if self._thread.is_alive():
            self.error = self.error or "it does not stop"

    @abstractmethod
    def _look(self) -> None:
        """Watch until `_stop` is set."""

    def _run(self) -> None:
        try:
            self._look()
        except Exception as error:  # noqa: BLE001 -- the verdict tells it
            self.error = repr(error)
