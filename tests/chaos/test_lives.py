"""The watch on the lives of an input's log, without a broker."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, Self

import pytest

from tests.chaos import lives as watch_module
from tests.chaos.lives import Lives
from tests.chaos.sent import Sent, numbered
from tests.support.workers import wait_until
from worker.errors import StreamlabelError


class _Reader:
    """Reads a log of three records in partition 0, or nothing while it is unreachable."""

    def __init__(self, *, reachable: bool) -> None:
        self.unread = {} if reachable else {0: 0}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, _: str, ends: Any, begin: Any) -> Iterator[Any]:
        for offset in range(begin[0], 0 if self.unread else ends[0]):
            yield SimpleNamespace(
                partition=0, offset=offset, headers=numbered(10 + offset), timestamp_ms=0
            )


@pytest.mark.parametrize("reachable", [True, False])
def test_a_life_ends_once_all_that_the_group_has_committed_is_known(reachable: bool) -> None:
    """Else a record without an outcome would count as lost with its log, and not as missing."""
    lives = Lives("127.0.0.1:1", "input", lambda _: {0: 2}, Sent())
    stop, reader = threading.Event(), _Reader(reachable=reachable)

    def look() -> None:
        while not stop.wait(0.01):
            lives._try_round(None, reader)  # type: ignore[arg-type]

    watch = threading.Thread(target=look)
    watch.start()
    try:
        assert lives.end(30 if reachable else 0.2) is reachable
    finally:
        stop.set()
        watch.join()
    assert lives.finished == ({10, 11} if reachable else set())
    with lives.steady() as alive:
        assert alive is not reachable
    lives.begin(12)
    assert not lives.reached


def _watched(monkeypatch: pytest.MonkeyPatch, *opened: Exception | _Reader) -> Lives:
    """Return a watch whose reader is each of these in turn, once it has ended or found records."""
    turns = iter(opened)

    def connect(*_: object) -> _Reader:
        turn = next(turns)
        if isinstance(turn, Exception):
            raise turn
        return turn

    monkeypatch.setattr(watch_module, "Admin", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(watch_module, "TopicReader", connect)
    lives = Lives("127.0.0.1:1", "input", lambda _: {0: 2}, Sent())
    with lives:
        wait_until(lambda: bool(lives.finished or lives.error), what="records or an error")
    return lives


def test_a_cluster_that_is_away_does_not_end_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = _watched(monkeypatch, StreamlabelError("away"), _Reader(reachable=True))
    assert (lives.finished, lives.failure) == ({10, 11}, "")


def test_a_watch_that_ends_early_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    lives = _watched(monkeypatch, ValueError("no such state"))
    assert lives.failure == "the watch of the input ended early: ValueError('no such state')"


def test_a_watch_that_found_nothing_says_so() -> None:
    lives = Lives("127.0.0.1:1", "input", lambda _: {}, Sent())
    assert lives.failure == "the watch of the input found no record that was finished"
