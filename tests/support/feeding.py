"""A stream that goes on until the test ends it, so that a worker is never done before its fault.

Owns: the thread `feed`.
Thread: the test's constructs, waits and ends; `feed` sends.
Must not import: the worker.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Self

from tests.support.workers import wait_until

_BATCH: Final = 100


class Feed:
    """Sends batches of records in a `with` block, which ends after the batch under way.

    Args:
        send: takes the number of the first record and the number of records; returns once the
            broker has acknowledged all of them.

    Attributes:
        sent: number of records that the broker has acknowledged.
    """

    def __init__(self, send: Callable[[int, int], None]) -> None:
        self._send, self.sent = send, 0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def wait_for_more(self) -> None:
        """Wait for a batch that began after this call: a worker that is dead has none of it."""
        now = self.sent
        wait_until(lambda: self.sent >= now + 2 * _BATCH, what="more records are sent")

    def _run(self) -> None:
        while not self._ended.is_set():
            self._send(self.sent, _BATCH)
            self.sent += _BATCH
