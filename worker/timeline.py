"""Records the work of each thread as a trace in Chrome's format, for Perfetto or chrome://tracing.

A module calls `span` around a piece of work, or `spent` after it, and `interval` for a time that
belongs to no thread. They do nothing unless a `recording` is on, which holds for the whole process,
as the log's settings do.

Owns: the recording, and its file.
Thread: any.
Must not import: anything of worker but the ground floor.

The format is the JSON array of
https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU.
Its last bracket may be missing, and every event is written at once, so the file of a process that
was killed loads too.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from io import RawIOBase
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from worker.clock import Clock
from worker.errors import SettingsError
from worker.logs import get_logger

log = get_logger(__name__)

MOST_BYTES: Final = 64_000_000
_US: Final = 1_000_000
_PROCESS: Final = 1

_OFF: Final[AbstractContextManager[object]] = nullcontext()
_recording: _Recording | None = None


def span(name: str, **counts: int) -> AbstractContextManager[object]:
    """Return a context whose length is shown on the track of the calling thread.

    Args:
        name: of the work.
        counts: shown with it, such as records and tokens.
    """
    return _OFF if _recording is None else _Span(_recording, name, counts)


def spent(name: str, began: float, **counts: int) -> None:
    """Show that the calling thread has worked on this until now.

    Args:
        name: of the work.
        began: seconds of the monotonic clock.
        counts: shown with it.
    """
    if _recording is not None:
        _recording.spent(name, began, counts)


def interval(name: str, began: float, ended: float, **counts: int) -> None:
    """Show a time that belongs to no thread, such as a wait; intervals of a name may overlap.

    Args:
        name: of the interval; each name has a track of its own.
        began: seconds of the monotonic clock.
        ended: by the same clock.
        counts: shown with it.
    """
    if _recording is not None:
        _recording.interval(name, began, ended, counts)


@contextlib.contextmanager
def recording(file: Path | None, clock: Clock, most_bytes: int = MOST_BYTES) -> Iterator[None]:
    """Record until the context exits; an existing file is replaced.

    Args:
        file: the trace; None records nothing.
        clock: the one that stamps records and micro-batches.
        most_bytes: of the file, about; the recording ends there.

    Raises:
        SettingsError: the file can't be written.
    """
    global _recording  # noqa: PLW0603 - one for the process, as the module says
    if file is None:
        yield
        return
    try:
        opened = file.open("wb", buffering=0)  # an event reaches the file at once, and whole
    except OSError as error:
        raise SettingsError(
            f"profile: can't write {file} ({error.strerror}); name a file in a folder that exists"
        ) from error
    with opened:
        _recording = _Recording(opened, clock, most_bytes)
        try:
            yield
        finally:
            last, _recording = _recording, None
            last.close()


class _Recording:
    """Writes events; after an error of the file it writes no more, and the worker goes on."""

    def __init__(self, file: RawIOBase, clock: Clock, most_bytes: int) -> None:
        self._file, self._most, self._left = file, most_bytes, most_bytes
        self.now = clock.monotonic
        self._lock = threading.Lock()
        self._tracks: dict[str, int] = {}  # by the thread's name: a lane is a new thread each pass
        self._numbers = itertools.count(1)
        self._failed = False
        self._write("[\n")

    def spent(self, name: str, began: float, counts: dict[str, int]) -> None:
        """Write a span of the calling thread that ends now."""
        duration = round((self.now() - began) * _US)
        with self._lock:
            track = self._track(threading.current_thread().name)
            self._event("X", name, began, track, dur=duration, args=counts)

    def interval(self, name: str, began: float, ended: float, counts: dict[str, int]) -> None:
        """Write an interval, which Chrome's format calls an asynchronous event."""
        with self._lock:
            same: dict[str, Any] = {"cat": name, "id": next(self._numbers)}
            self._event("b", name, began, 0, **same, args=counts)
            self._event("e", name, ended, 0, **same)

    def close(self) -> None:
        """End the array."""
        with self._lock:
            if not self._failed:
                self._put(json.dumps(_metadata("process_name", 0, "streamlabel")) + "\n]\n")
            self._left = 0  # a thread that is still at work writes nothing after the end

    def _track(self, thread: str) -> int:
        track = self._tracks.get(thread)
        if track is None:
            track = self._tracks[thread] = len(self._tracks) + 1
            self._write(json.dumps(_metadata("thread_name", track, thread)) + ",\n")
        return track

    def _event(self, kind: str, name: str, at: float, track: int, **more: Any) -> None:
        event = {"ph": kind, "name": name, "ts": round(at * _US), "pid": _PROCESS, "tid": track}
        self._write(json.dumps(event | more) + ",\n")

    def _write(self, line: str) -> None:
        if self._left <= 0:
            return
        self._left -= len(line)
        self._put(line)
        if self._left <= 0 and not self._failed:
            log.warning("profile ends early: its file is full", most_bytes=self._most)

    def _put(self, line: str) -> None:
        try:
            self._file.write(line.encode("ascii"))
        except OSError as error:
            self._left, self._failed = 0, True
            log.warning("profile ends early: its file can't be written", reason=str(error))


class _Span:
    def __init__(self, recording: _Recording, name: str, counts: dict[str, int]) -> None:
        self._recording, self._name, self._counts = recording, name, counts

    def __enter__(self) -> None:
        self._began = self._recording.now()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._recording.spent(self._name, self._began, self._counts)


def _metadata(kind: str, track: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": kind, "pid": _PROCESS, "tid": track, "args": {"name": name}}
