"""A few thousand generated records through the whole worker: real broker, real tokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Broker, Topics
from tests.support.fuzz import records
from tests.support.models import make_checkpoint
from tests.support.workers import audit, count, produce, read, running, wait_until
from worker.inference.loading import load
from worker.settings import ModelSettings

pytestmark = pytest.mark.integration

NUMBER = 3000


def test_every_generated_record_has_one_outcome(
    broker: Broker, topics: Topics, tmp_path: Path
) -> None:
    checkpoint = make_checkpoint(tmp_path / "model", max_tokens=64)
    model = load(ModelSettings(name=str(checkpoint), threads=1), forward_tokens=4096)
    values = list(records(7, NUMBER))
    produce(broker, topics.input, [(b"key-%d" % (n % 11), v) for n, v in enumerate(values)])
    with running(broker, topics, model) as worker:
        wait_until(lambda: count(broker, topics) >= NUMBER, 120, "every record has an outcome")
    assert worker.error is None
    verdict = audit(broker, topics)
    assert verdict["holds"], verdict
    assert (verdict["consumed"], verdict["duplicated"]) == (NUMBER, 0)
    originals = {(r.partition, r.offset): r for r in read(broker, topics.input, 3)}
    for dead in read(broker, topics.dead, 3):
        _, partition, offset = dict(dead.headers)["streamlabel-source"].decode().split("/")
        source = originals[int(partition), int(offset)]
        assert (dead.key, dead.value) == (source.key, source.value or b"")
