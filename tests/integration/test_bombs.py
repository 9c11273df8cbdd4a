"""Compressed batches that expand far beyond their size, in a process with little memory."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import snappy
from kafka import KafkaProducer
from kafka.record import default_records

from schemas import DeadLetter
from tests.conftest import Broker, Topics
from tests.support.workers import Record, audit, count, flags, read, running, texts, wait_until
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.errors import InputDamaged

pytestmark = [
    pytest.mark.integration,
    pytest.mark.parametrize("topics", [1], indirect=True),
    pytest.mark.skipif(sys.platform != "linux", reason="needs a bound on the address space"),
]

ROOM = 700_000_000  # bytes of address space
BOMB = 300_000_000  # bytes


@contextlib.contextmanager
def narrow_worker(
    broker: Broker, topics: Topics, log: Path, **more: object
) -> Iterator[subprocess.Popen[bytes]]:
    chosen = flags(broker, topics) | {k.replace("__", "."): v for k, v in more.items()}
    command = [sys.executable, "-m", "tests.support.narrow", str(ROOM), json.dumps(chosen)]
    with log.open("wb") as sink:
        process = subprocess.Popen(command, stdout=sink, stderr=sink)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def send(broker: Broker, topic: str, codec: str, records: Sequence[Record]) -> None:
    """Send all values as one batch, of any size."""
    producer = KafkaProducer(
        bootstrap_servers=broker.bootstrap_servers.split(","),
        compression_type=codec,
        linger_ms=60_000,
        batch_size=2 * BOMB,
        max_request_size=2 * BOMB,
    )
    for key, value in records:
        producer.send(topic, key=key, value=value)
    producer.flush()
    producer.close()


def outcomes(broker: Broker, topics: Topics, process: subprocess.Popen[bytes], log: Path) -> int:
    assert process.poll() is None, log.read_text()[-3000:]
    return count(broker, topics)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_record_that_unpacks_to_more_than_there_is_room_for_is_a_dead_letter(
    broker: Broker, topics: Topics, tmp_path: Path, codec: str
) -> None:
    """The other records of its batch, before and after it, are labelled."""
    log = tmp_path / "log"
    send(broker, topics.input, codec, [*texts(3), (b"bomb", b" " * BOMB), *texts(3, start=3)])
    send(broker, topics.input, codec, texts(5, start=6))
    with narrow_worker(broker, topics, log) as process:
        wait_until(lambda: outcomes(broker, topics, process, log) == 12, 120, "all have outcomes")
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    (dead,) = read(broker, topics.dead, 1)
    letter = DeadLetter.model_validate_json(dict(dead.headers)[DEAD_LETTER_HEADER])
    assert (letter.reason.value, letter.value_state.value) == ("too_large", "cut")
    assert (letter.value_bytes, letter.source.offset, dead.key) == (BOMB, 3, b"bomb")
    assert "max_inflight_bytes" in letter.message
    assert dead.value.strip() == b"" != dead.value
    verdict = audit(broker, topics)
    assert (verdict["holds"], verdict["consumed"], verdict["pending"]) == (True, 12, 0), verdict


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_batch_of_many_large_records_is_read_in_portions(
    broker: Broker, topics: Topics, tmp_path: Path, codec: str
) -> None:
    """300 records of just under `input.max_bytes` each: all of them are labelled."""
    log = tmp_path / "log"
    text = json.dumps({"text": "short", "more": " " * 999_000}).encode()
    send(broker, topics.input, codec, [(None, text)] * 300)
    send(broker, topics.input, codec, texts(5))
    with narrow_worker(broker, topics, log) as process:
        wait_until(lambda: outcomes(broker, topics, process, log) == 305, 150, "all have outcomes")
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    assert read(broker, topics.dead, 1) == []


@pytest.mark.allow_errors
@pytest.mark.parametrize("delivery", ["at_least_once", "exactly_once"])
def test_a_batch_that_can_only_be_unpacked_whole_stops_the_worker_with_advice(
    broker: Broker, topics: Topics, monkeypatch: pytest.MonkeyPatch, delivery: str
) -> None:
    """A block of snappy, as librdkafka writes it: its records can't be read one by one."""
    if broker.kind == "embedded":
        pytest.skip("the embedded broker forgets a group that nobody is in")
    narrow = {"max_inflight_bytes": 2_000_000, "delivery": delivery}
    with monkeypatch.context() as other:
        other.setattr(default_records, "snappy_encode", snappy.compress)
        send(broker, topics.input, "snappy", texts(5))
        send(broker, topics.input, "snappy", [(None, b" " * 3_000_000), *texts(3, start=5)])
    send(broker, topics.input, "gzip", texts(5, start=8))
    with running(broker, topics, **narrow) as worker:
        worker.join(60)
    assert isinstance(worker.error, InputDamaged)
    said = str(worker.error)
    assert f"{topics.input}[0]: offsets 5 to 8 can't be read" in said
    assert "(limit 2000000)" in said
    assert count(broker, topics) == 5
    (command,) = re.findall(r"^ +python (.+)$", said, re.MULTILINE)
    subprocess.run([sys.executable, *shlex.split(command)], check=True, capture_output=True)
    with running(broker, topics, **narrow):
        wait_until(lambda: count(broker, topics) == 10, what="what lies behind it is labelled")
    assert len(read(broker, topics.dead, 1)) == 0
