"""The client's sender loses its batches, and only a new producer can go on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.conftest import Broker, Topics
from tests.support.workers import audit, count, produce, running, texts, wait_until
from worker.errors import AccessDenied
from worker.kafka_io.publisher import Publisher

pytestmark = pytest.mark.integration


def lose_a_request(producer: Any) -> None:
    """An exception between queue and socket: the batches are in neither."""
    sender = producer._sender
    real = sender._create_produce_requests

    def once(batches: Any) -> dict[Any, Any]:
        if any(batches.values()):
            sender._create_produce_requests = real
        return {}

    sender._create_produce_requests = once


def lose_an_answer(producer: Any) -> None:
    """An exception in a callback: stored batches are neither acknowledged nor retried."""
    sender = producer._sender
    real = sender._handle_produce_response

    def once(*_: Any) -> None:
        sender._handle_produce_response = real

    sender._handle_produce_response = once


def die(producer: Any) -> None:
    """The thread of the sender ends."""

    def exit_() -> None:
        raise SystemExit

    producer._sender.run_once = exit_


@pytest.mark.parametrize(
    ("fault", "delivery", "repeats"),
    [
        (lose_a_request, "at_least_once", False),
        (lose_an_answer, "at_least_once", True),
        pytest.param(
            die,
            "at_least_once",
            False,
            marks=pytest.mark.filterwarnings(
                "ignore::pytest.PytestUnhandledThreadExceptionWarning"
            ),
        ),
        (lose_an_answer, "exactly_once", False),
    ],
)
def test_a_producer_that_has_stopped_sending_is_replaced(
    broker: Broker,
    topics: Topics,
    monkeypatch: pytest.MonkeyPatch,
    fault: Callable[[Any], None],
    delivery: str,
    repeats: bool,
) -> None:
    """Without that, it waits for ever with /livez red until a restart."""
    made: list[Publisher] = []
    refused: list[str] = []

    class Remembered(Publisher):
        def __init__(self, *args: Any, **more: Any) -> None:
            if made and delivery == "at_least_once" and not refused:
                refused.append("a suspicion is no reason to stop")
                raise AccessDenied(*refused)
            super().__init__(*args, **more)
            made.append(self)

    monkeypatch.setattr("worker.runtime.assembly.Publisher", Remembered)
    monkeypatch.setattr("worker.kafka_io.sink._CATCH_UP_TIME", 0.5)
    with running(
        broker,
        topics,
        delivery=delivery,
        kafka__request_timeout=1.0,
        transaction_timeout=3.0,
        commit_interval=0.5,
        batch__max_records=16,
    ) as worker:
        produce(broker, topics.input, texts(100))
        wait_until(lambda: worker.published == 100, what="it works")
        fault(made[-1]._producer)
        produce(broker, topics.input, texts(200, start=100))
        wait_until(lambda: worker.published == 300, 30, "another one goes on")
        assert len(made) == 2
        assert bool(refused) == (delivery == "at_least_once")
    assert worker.error is None
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["missing"], verdict["reordered"]) == (300, 0, 0)
    assert (count(broker, topics) > 300) == repeats
