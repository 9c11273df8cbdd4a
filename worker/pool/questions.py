"""What the parent says to one process: its order, then questions of the page's box.

Parent's side, in a thread of its own: who asks may not wait, and a process that stands still takes
nothing off its pipe. A process is asked one thing at a time, so that an answer needs no number, and
one that owes an answer, however late that is, is passed over. Imports `box`.
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


class Questions:
    """Writes to a process's stdin, from construction until `close`.

    Args:
        stdin: its pipe.
        order: the first line.
        pid: names the thread.
    """

    def __init__(self, stdin: IO[bytes], order: Mapping[str, Any], pid: int) -> None:
        self._stdin = stdin
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._lines.put(_line(order))
        self._owed: Future[Answer] | None = None
        self._closed = False
        self._lock = threading.Lock()
        self._writer = threading.Thread(target=self._write, name=f"asks-{pid}", daemon=True)
        self._writer.start()

    @property
    def free(self) -> bool:
        """Whether it can be asked: it runs, and owes no answer."""
        return self._owed is None and not self._closed

    def ask(self, text: str) -> Future[Answer]:
        """HTTP thread: put a question to a process that is free; never waits."""
        asked: Future[Answer] = Future()
        with self._lock:
            self._owed = asked
        self._lines.put(_line({"text": text}))
        if self._closed:  # meanwhile, or before
            self.answered("the process that was asked has ended")
        return asked

    def answered(self, answer: Answer | str) -> None:
        """Pass on what it says, or the words that say why it can't; nobody may wait for it now."""
        with self._lock:
            owed, self._owed = self._owed, None
        if owed is None or not owed.set_running_or_notify_cancel():
            return
        if isinstance(answer, Answer):
            owed.set_result(answer)
        else:
            owed.set_exception(Unanswerable(answer))

    def close(self) -> None:
        """The process has ended."""
        self._closed = True
        # Not put to another one: it may be the text that ends whoever reads it.
        self.answered("the process that was asked has ended")
        self._lines.put(_END)
        self._writer.join()
        with contextlib.suppress(BrokenPipeError):
            self._stdin.close()

    def _write(self) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended already, which `poll` will tell
            while (line := self._lines.get()) != _END:
                self._stdin.write(line)
                self._stdin.flush()


def _line(said: Mapping[str, Any]) -> bytes:
    return json.dumps(said).encode() + b"\n"
