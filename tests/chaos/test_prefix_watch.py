"""The watch on prefixes, without a broker: one that could not look does not vouch for a run."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest
from kafka.errors import KafkaError

from tests.chaos import prefix_watch
from tests.chaos.prefix_watch import PrefixWatch
from tests.support.workers import wait_until
from worker.core.records import Partition
from worker.kafka_io.audit_outcomes import AuditedOutcome

_IN, _OUT = Partition("in", 0), Partition("out", 0)
_AWAY = KafkaError("away")


def _failure(
    monkeypatch: pytest.MonkeyPatch, look: Callable[[PrefixWatch], None], *refusals: Exception
) -> str:
    """Return the failure of a watch whose connections fail first, and whose rounds `look`."""
    left, connected = list(refusals), threading.Event()

    def connect(**_: object) -> SimpleNamespace:
        if left:
            raise left.pop(0)
        connected.set()
        return SimpleNamespace(close=lambda: None)

    monkeypatch.setattr(prefix_watch, "KafkaConsumer", connect)
    monkeypatch.setattr(prefix_watch, "Admin", lambda _: contextlib.nullcontext())
    monkeypatch.setattr(prefix_watch, "_LAST_S", 0.2)
    monkeypatch.setattr(PrefixWatch, "_round", lambda watch, *_: look(watch))
    with PrefixWatch("127.0.0.1:1", "group", "in", {"out": "result"}) as watch:
        wait_until(lambda: connected.is_set() or not watch._thread.is_alive(), what="a connection")
    return watch.failure


def _check(watch: PrefixWatch) -> None:
    watch.prefixes.expect({_IN: 1}, {_OUT: 1})
    if not watch.rounds:
        watch.prefixes.see(AuditedOutcome(("in", 0, 0), 0, None, b""), "out")
    watch.prefixes.reached({_OUT: 1}, {_IN: 0})


def _wait(watch: PrefixWatch) -> None:
    _check(watch)
    watch.prefixes.expect({_IN: 2}, {_OUT: 2})


def _raise(error: Exception) -> Callable[[PrefixWatch], None]:
    def look(_: PrefixWatch) -> None:
        raise error

    return look


@pytest.mark.parametrize("refusals", [(), (_AWAY, _AWAY)])
def test_a_watch_that_checks_vouches(
    monkeypatch: pytest.MonkeyPatch, refusals: tuple[Exception, ...]
) -> None:
    assert _failure(monkeypatch, _check, *refusals) == ""


@pytest.mark.parametrize(
    ("look", "refusals", "failure"),
    [
        (_check, (ValueError("x"),), "the watch of the prefixes ended early: ValueError('x')"),
        (_raise(ValueError("x")), (), "the watch of the prefixes ended early: ValueError('x')"),
        (_raise(_AWAY), (), "the watch of the prefixes ended early: no last look in 0.2 s"),
        (_wait, (), "the watch of the prefixes had not read all outcomes after 0.2 s"),
        (lambda _: None, (), "the watch of the prefixes checked nothing in "),
    ],
)
def test_a_watch_that_could_not_check_says_so(
    monkeypatch: pytest.MonkeyPatch,
    look: Callable[[PrefixWatch], None],
    refusals: tuple[Exception, ...],
    failure: str,
) -> None:
    assert _failure(monkeypatch, look, *refusals).startswith(failure)
