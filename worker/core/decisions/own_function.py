"""Calls the function that `prepare.function` names, and bounds what it may do to a worker.

Owns: the checks of its result, the description of its errors, and the lock around its calls.
Thread: the caller's.
Must not import: anything of worker but errors and underway.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final

from schemas.dead_letter import DeadLetterReason
from worker import underway
from worker.errors import Interrupted, RecordRejected

# Characters that it may return for a shorter text.
LONGEST_RESULT: Final = 1_000_000


@dataclass(frozen=True)
class OwnFunction:
    """A function that turns a text into another one, or into None.

    One call runs at a time: a shadow prepares its texts on another thread than the first model.

    Attributes:
        name: as set, `package.module:name`.
        mark: tells its versions apart: the version of its package, and a digest of its module.
        function: the function.
    """

    name: str
    mark: str
    function: Callable[[str], Any]
    _lock: threading.Lock = field(
        init=False, repr=False, compare=False, default_factory=threading.Lock
    )

    def __call__(self, text: str) -> str | None:
        """Return the function's text, or None for a text that it skips.

        Raises:
            RecordRejected: it raises anything, or returns something else or too long a text.
        """
        with underway.named(f"prepare.function {self.name}"), self._lock:
            result = self._call(text)
        if result is not None and not isinstance(result, str):
            raise self._rejected(f"returned {type(result).__name__}: it must return str or None")
        most = max(len(text), LONGEST_RESULT)
        if result is not None and len(result) > most:
            raise self._rejected(
                f"returned {len(result):,} characters for {len(text):,}, and {most:,} are allowed"
            )
        return result

    def _call(self, text: str) -> Any:
        try:
            return self.function(text)
        except BaseException as error:
            # Any error of its own concerns this record alone, `sys.exit()` too.
            if isinstance(error, Interrupted):  # Ctrl-C ends a command
                raise
            raise self._rejected(f"raised {type(error).__name__}{_place(error)}") from error

    def _rejected(self, problem: str) -> RecordRejected:
        return RecordRejected(
            DeadLetterReason.PREPARE_FAILED, f"prepare.function {self.name} {problem}"
        )


def _place(error: BaseException) -> str:
    """Return where it was raised: file and line. An error's message may quote the text."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    if trace is None or trace.tb_frame.f_code.co_filename == __file__:
        return ""
    return f" in {PurePath(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno}"
