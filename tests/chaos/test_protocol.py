"""The proxy's faults inside Kafka's protocol."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from kafka.protocol import consumer, producer

from tests.chaos.protocol import (
    _ANSWERS,
    CODES,
    ERRORS,
    LOSABLE,
    THROTTLE_MS,
    Conversation,
    Frames,
    Meddler,
    Meddling,
    correlation_in,
    error_answer,
    request_in,
)

_HEARTBEAT = consumer.HeartbeatRequest


def frame(request: Any, version: int, correlation: int = 9, **members: Any) -> bytes:
    """Return a request as a client sends it."""
    made = request(version=version, **members)
    made.with_header(correlation_id=correlation)
    return bytes(made.encode(version=version, header=True, framed=True))


def reply(correlation: int, body: bytes = b"") -> bytes:
    rest = struct.pack(">i", correlation) + body
    return struct.pack(">i", len(rest)) + rest


def talk(*fault: Any, **members: Any) -> Conversation:
    return Conversation(Meddler(fault=Meddling(*fault, **members)))


def test_a_stream_is_cut_into_frames_wherever_its_chunks_end() -> None:
    sent = [frame(_HEARTBEAT, 4, n) for n in range(3)]
    stream = b"".join(sent)
    for size in (1, 3, 7, len(stream)):
        frames, seen = Frames(), []
        for at in range(0, len(stream), size):
            seen += frames.feed(stream[at : at + size])
        assert seen == sent


def test_a_request_is_read_by_its_header() -> None:
    request = request_in(frame(_HEARTBEAT, 4))
    assert request[:3] == ("Heartbeat", 4, 9)
    unknown = struct.pack(">ihhi", 8, 999, 0, 3)
    assert request_in(unknown).api == "999"


@pytest.mark.parametrize("api", _ANSWERS)
def test_an_answer_is_made_for_every_version_that_the_client_knows(api: str) -> None:
    asked, answered, _ = _ANSWERS[api]
    for version in range(asked.max_version + 1):
        made = error_answer(request_in(frame(asked, version)), 16)
        assert made is not None
        assert correlation_in(made) == 9
        answered.decode(made, version=version, header=True, framed=True)


def test_every_partition_of_a_request_is_refused() -> None:
    topic = consumer.OffsetCommitRequest.OffsetCommitRequestTopic
    part = topic.OffsetCommitRequestPartition
    parts = [part(partition_index=n, committed_offset=5) for n in (0, 3)]
    request = frame(
        consumer.OffsetCommitRequest, 7, group_id="g", topics=[topic(name="in", partitions=parts)]
    )
    made = error_answer(request_in(request), 22)
    answer = consumer.OffsetCommitResponse.decode(made, version=7, header=True, framed=True)
    (answered,) = answer.topics
    assert answered.name == "in"
    assert [(p.partition_index, p.error_code) for p in answered.partitions] == [(0, 22), (3, 22)]


def test_every_batch_of_a_produce_request_is_refused() -> None:
    topic = producer.ProduceRequest.TopicProduceData
    data = topic(name="out", partition_data=[topic.PartitionProduceData(index=2, records=b"")])
    made = error_answer(request_in(frame(producer.ProduceRequest, 8, topic_data=[data])), 6)
    answer = producer.ProduceResponse.decode(made, version=8, header=True, framed=True)
    (part,) = answer.responses[0].partition_responses
    assert (answer.responses[0].name, part.index, part.error_code) == ("out", 2, 6)


def test_a_made_answer_waits_for_the_answers_before_it() -> None:
    """A client expects answers in the order of its requests."""
    it = talk("answer_error", "Heartbeat", "NOT_COORDINATOR")
    other = frame(consumer.LeaveGroupRequest, 3, 1)
    assert it.ask(other) == (other, 0.0)
    assert it.ask(frame(_HEARTBEAT, 4, 2)) == (b"", 0.0)
    assert list(it.made()) == []
    answers = list(it.answer(reply(1)))
    assert [correlation_in(one) for one in answers] == [1, 2]
    heartbeat = consumer.HeartbeatResponse.decode(answers[1], version=4, header=True, framed=True)
    assert heartbeat.error_code == CODES["NOT_COORDINATOR"]


def test_a_lost_reply_ends_the_connection_after_the_broker_has_acted() -> None:
    it = talk("lose_reply", "Heartbeat")
    request = frame(_HEARTBEAT, 4, 5)
    assert it.ask(request)[0] == request
    assert not it.closed
    assert list(it.answer(reply(5))) == []
    assert it.closed


def test_a_request_is_delayed_or_cut() -> None:
    request = frame(_HEARTBEAT, 4)
    assert talk("delay", "Heartbeat", seconds=1.5).ask(request) == (request, 1.5)
    it = talk("cut_frame", "Heartbeat")
    assert it.ask(request)[0] == request[: len(request) // 2]
    assert it.closed


def test_a_throttled_answer_says_for_how_long_to_wait() -> None:
    it = talk("throttle", "Heartbeat")
    it.ask(frame(_HEARTBEAT, 4, 7))
    untouched = consumer.HeartbeatResponse(version=4, error_code=27)
    body = b"\0" + bytes(untouched.encode(version=4))
    (answer,) = it.answer(reply(7, body))
    read = consumer.HeartbeatResponse.decode(answer, version=4, header=True, framed=True)
    assert (read.throttle_time_ms, read.error_code) == (THROTTLE_MS, 27)


def test_a_fault_happens_to_its_share_of_its_api_alone() -> None:
    meddler = Meddler(seed=1, fault=Meddling("lose_reply", "Heartbeat", share=0.5))
    request = request_in(frame(_HEARTBEAT, 4))
    other = request_in(frame(consumer.LeaveGroupRequest, 3))
    hits = sum(meddler.of(request) is not None for _ in range(1_000))
    assert 400 < hits < 600
    assert meddler.of(other) is None
    assert meddler.counts == {"lose_reply Heartbeat": hits}
    meddler.fault = None
    assert meddler.of(request) is None


def test_every_fault_of_the_plan_can_be_made() -> None:
    assert {error for _, error in ERRORS} == set(CODES)
    assert {api for api, _ in ERRORS} <= set(_ANSWERS)
    assert set(LOSABLE) <= set(_ANSWERS)
