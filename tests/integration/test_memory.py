"""Records in flight are bounded in bytes, not only in number."""

from __future__ import annotations

import json
import threading

import pytest

from tests.conftest import Broker, Topics
from tests.support.workers import ObedientModel, audit, count, produce, running, wait_until
from worker.core.state import State

pytestmark = pytest.mark.integration

_FETCH = 1024 * 1024  # the client fetches this much of a partition; it may exceed the bound by it


@pytest.mark.parametrize("topics", [1], indirect=True)
def test_large_records_pause_polling_before_memory_is_full(broker: Broker, topics: Topics) -> None:
    if broker.kind == "embedded":
        pytest.skip("the embedded broker answers a fetch with all that there is")
    gate = threading.Event()

    def wait(_: list[str]) -> None:
        gate.wait(60)

    text = json.dumps({"text": "short", "more": "x" * 100_000}).encode()
    bound = 2_000_000
    produce(broker, topics.input, [(None, text)] * 60)
    with running(
        broker, topics, ObedientModel(wait), max_inflight_bytes=bound, batch__max_records=4
    ) as worker:
        wait_until(lambda: worker.progress.state is State.PAUSED, what="polling is paused")
        wait_until(
            lambda: worker.value("streamlabel_inflight_bytes") >= bound, what="the bytes are told"
        )
        assert worker.value("streamlabel_inflight_bytes") < bound + _FETCH + len(text)
        gate.set()
        wait_until(lambda: count(broker, topics) == 60, what="all are labelled")
    verdict = audit(broker, topics)
    assert (verdict["holds"], verdict["consumed"]) == (True, 60), verdict
