"""Writes to a child's stdin: its settings first, then questions from the page and orders.

Owns: the parent's end of the pipe, and the thread `asks-PID` that writes to it.
Thread: http asks; `reports-PID` resolves; main orders and closes.
Must not import: kafka, torch, transformers.

A thread of its own writes, because the asker must not wait and a hung process does not read its
pipe. A process is asked one question at a time, so an answer needs no number. A process that owes
an answer gets no other question, however late the answer is.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import IO, Any

from worker.http.ask import Answer, Unanswerable

_END = b""
_ENDED = "the process that was asked has ended"


class QuestionWriter:
    """Writes to a process's stdin, from construction until `close`.

    Args:
        stdin: the pipe.
        config: the first line.
        pid: names the thread.
    """

    def __init__(self, stdin: IO[bytes], config: Mapping[str, Any], pid: int) -> None:
        self._stdin = stdin
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._lines.put(_line(config))
        self._pending: Future[Answer] | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._writer = threading.Thread(target=self._write, name=f"asks-{pid}", daemon=True)
        self._writer.start()

    @property
    def free(self) -> bool:
        """True while the process runs and owes no answer."""
        return self._pending is None and not self._closed

    def ask(self, text: str, record: Mapping[str, Any] | None = None) -> Future[Answer]:
        """Send a question to a free process without waiting. HTTP thread only."""
        answer: Future[Answer] = Future()
        with self._lock:
            self._pending = answer
        self._lines.put(_line({"text": text, "record": record}))
        if self._closed:  # by now, or before
            self.resolve(_ENDED)
        return answer

    def order(self, order: Mapping[str, Any]) -> None:
        """Send an order, which `orders.ModelOrders` obeys, without waiting."""
        self._lines.put(_line({"order": order}))

    def resolve(self, result: Answer | str) -> None:
        """Give the pending question its answer, or the reason why there is none."""
        with self._lock:
            pending, self._pending = self._pending, None
        if pending is None or not pending.set_running_or_notify_cancel():
            return
        if isinstance(result, Answer):
            pending.set_result(result)
        else:
            pending.set_exception(Unanswerable(result))

    def close(self) -> None:
        """Release the pipe of a process that has ended."""
        self._closed = True
        # The question goes to no other process: its text may be what ended this one.
        self.resolve(_ENDED)
        self._lines.put(_END)
        self._writer.join()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()

    def _write(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # the process has ended, as `poll` will report
            while (line := self._lines.get()) != _END:
                self._stdin.write(line)
                self._stdin.flush()


def _line(document: Mapping[str, Any]) -> bytes:
    return json.dumps(document).encode() + b"\n"
