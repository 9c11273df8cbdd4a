"""Faults inside Kafka's protocol: a proxy reads the requests, and meddles with those of one API.

A frame begins with its length. A request goes on with API key, version and correlation id; its
answer with the correlation id (https://kafka.apache.org/protocol). One thread uses a `Meddler`, and
each connection has a `Conversation` of its own.
"""

from __future__ import annotations

import random
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from kafka.protocol import consumer, producer
from kafka.protocol.api_key import ApiKey

Action = Literal["lose_reply", "answer_error", "throttle", "delay", "cut_frame"]

_LENGTH: Final = struct.Struct(">i")
_REQUEST: Final = struct.Struct(">ihhi")  # length, API key, version, correlation id
_REPLY: Final = struct.Struct(">ii")  # length, correlation id

# The APIs whose reply a worker can lose after the broker has acted.
LOSABLE: Final = (
    "Produce",
    "EndTxn",
    "TxnOffsetCommit",
    "OffsetCommit",
    "JoinGroup",
    "SyncGroup",
)
# API and error code of the answers that a broker could give instead of acting.
ERRORS: Final[tuple[tuple[str, str], ...]] = (
    ("OffsetCommit", "NOT_COORDINATOR"),
    ("OffsetCommit", "COORDINATOR_LOAD_IN_PROGRESS"),
    ("OffsetCommit", "REBALANCE_IN_PROGRESS"),
    ("OffsetCommit", "ILLEGAL_GENERATION"),
    ("Heartbeat", "REBALANCE_IN_PROGRESS"),
    ("Heartbeat", "UNKNOWN_MEMBER_ID"),
    ("Heartbeat", "NOT_COORDINATOR"),
    ("JoinGroup", "COORDINATOR_LOAD_IN_PROGRESS"),
    ("SyncGroup", "REBALANCE_IN_PROGRESS"),
    ("SyncGroup", "UNKNOWN_MEMBER_ID"),
    ("Produce", "NOT_LEADER_OR_FOLLOWER"),
    ("Produce", "UNKNOWN_TOPIC_ID"),
    ("Produce", "INVALID_PRODUCER_EPOCH"),
    ("TxnOffsetCommit", "NOT_COORDINATOR"),
    ("TxnOffsetCommit", "ILLEGAL_GENERATION"),
    ("TxnOffsetCommit", "COORDINATOR_LOAD_IN_PROGRESS"),
    ("EndTxn", "CONCURRENT_TRANSACTIONS"),
    ("EndTxn", "NOT_COORDINATOR"),
    ("EndTxn", "INVALID_PRODUCER_EPOCH"),
    ("AddOffsetsToTxn", "CONCURRENT_TRANSACTIONS"),
    ("InitProducerId", "COORDINATOR_LOAD_IN_PROGRESS"),
)
# https://kafka.apache.org/protocol#protocol_error_codes
CODES: Final[Mapping[str, int]] = {
    "NOT_LEADER_OR_FOLLOWER": 6,
    "COORDINATOR_LOAD_IN_PROGRESS": 14,
    "NOT_COORDINATOR": 16,
    "ILLEGAL_GENERATION": 22,
    "UNKNOWN_MEMBER_ID": 25,
    "REBALANCE_IN_PROGRESS": 27,
    "INVALID_PRODUCER_EPOCH": 47,
    "CONCURRENT_TRANSACTIONS": 51,
    "UNKNOWN_TOPIC_ID": 100,
}
# A broker that throttles answers as usual, and says for how long; the client then waits.
THROTTLE_MS: Final = 2_000


class Meddling(NamedTuple):
    """A fault that lasts for a while.

    Attributes:
        action: what happens to the requests.
        api: name of the API.
        error: code of the answer, for `answer_error`.
        share: of the API's requests that it happens to.
        seconds: of the delay, for `delay`.
    """

    action: Action
    api: str
    error: str = ""
    share: float = 1.0
    seconds: float = 0.0


class Request(NamedTuple):
    """The beginning of a request, and all of it."""

    api: str
    version: int
    correlation: int
    frame: bytes


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the frames that are whole now, each with its length in front."""
        self._rest += data
        while len(self._rest) >= _LENGTH.size:
            size = _LENGTH.size + _LENGTH.unpack_from(self._rest)[0]
            if len(self._rest) < size:
                return
            yield bytes(self._rest[:size])
            del self._rest[:size]


def request_in(frame: bytes) -> Request:
    """Return a request; its API has no name if the client library does not know it."""
    _, key, version, correlation = _REQUEST.unpack_from(frame)
    api = ApiKey(key).name if key in set(ApiKey) else str(key)
    return Request(api, version, correlation, frame)


def correlation_in(frame: bytes) -> int:
    """Return the correlation id of an answer."""
    correlation: int = _REPLY.unpack_from(frame)[1]
    return correlation


@dataclass
class Meddler:
    """The fault in force on a worker's connections.

    Attributes:
        fault: None while everything passes.
        counts: requests that a fault happened to, by action and API.
    """

    seed: int = 0
    fault: Meddling | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def of(self, request: Request) -> Meddling | None:
        """Return the fault that happens to a request, if one does."""
        fault = self.fault
        if fault is None or fault.api != request.api or self._random.random() >= fault.share:
            return None
        name = f"{fault.action} {fault.api} {fault.error}".strip()
        self.counts[name] = self.counts.get(name, 0) + 1
        return fault


class Conversation:
    """One connection: answers leave in the order of their requests, the made ones too.

    Attributes:
        closed: whether both ends must be closed, as after a reply that was lost.
    """

    def __init__(self, meddler: Meddler) -> None:
        self._meddler = meddler
        self._awaited: deque[tuple[int, bytes | None]] = deque()  # and the made answer, if any
        self._lost: set[int] = set()
        self._throttled: dict[int, Request] = {}
        self.closed = False

    def ask(self, frame: bytes) -> tuple[bytes, float]:
        """Take a request; return the bytes to forward, and seconds to wait before."""
        request = request_in(frame)
        fault = self._meddler.of(request)
        made = None
        if fault and fault.action == "answer_error":
            made = error_answer(request, CODES[fault.error])
        self._awaited.append((request.correlation, made))
        if made is not None:
            return b"", 0.0
        if fault and fault.action == "lose_reply":
            self._lost.add(request.correlation)
        if fault and fault.action == "throttle":
            self._throttled[request.correlation] = request
        if fault and fault.action == "cut_frame":
            self.closed = True
            return frame[: len(frame) // 2], 0.0
        return frame, fault.seconds if fault and fault.action == "delay" else 0.0

    def made(self) -> Iterator[bytes]:
        """Yield the made answers whose turn it is."""
        while self._awaited and (answer := self._awaited[0][1]) is not None:
            self._awaited.popleft()
            yield answer

    def answer(self, frame: bytes) -> Iterator[bytes]:
        """Take a broker's answer; yield what reaches the client."""
        correlation = correlation_in(frame)
        if correlation in self._lost:
            self.closed = True
            return
        if self._awaited and self._awaited[0][0] == correlation:
            self._awaited.popleft()
        request = self._throttled.pop(correlation, None)
        yield throttled(request, frame) if request else frame
        yield from self.made()


# -- made answers ----------------------------------------------------------------------------------


def error_answer(request: Request, code: int) -> bytes | None:
    """Return the answer of a broker that refuses a request, or None if it can't be made."""
    make = _ANSWERS.get(request.api)
    if make is None:
        return None
    request_class, response_class, fill = make
    asked = request_class.decode(request.frame, version=request.version, header=True, framed=True)
    return _framed(
        request, response_class(version=request.version, **fill(asked, code, response_class))
    )


def throttled(request: Request, frame: bytes) -> bytes:
    """Return a broker's answer with the demand to wait before the next request."""
    response_class = _ANSWERS[request.api][1]
    answer = response_class.decode(frame, version=request.version, header=True, framed=True)
    answer.throttle_time_ms = THROTTLE_MS
    return _framed(request, answer)


def _framed(request: Request, answer: Any) -> bytes:
    # The class' own header can't be encoded in an answer.
    answer._header = None
    body = bytes(answer.encode(version=request.version))
    tags = b"\0" if answer.flexible_version_q(request.version) else b""
    rest = struct.pack(">i", request.correlation) + tags + body
    return _LENGTH.pack(len(rest)) + rest


def _code_alone(_: Any, code: int, __: Any) -> dict[str, Any]:
    return {"error_code": code}


def _code_of_each_partition(asked: Any, code: int, response: Any) -> dict[str, Any]:
    """Return the members of OffsetCommit's and TxnOffsetCommit's answers."""
    topic_class = getattr(response, f"{response.__name__}Topic")
    partition_class = getattr(topic_class, f"{response.__name__}Partition")
    return {
        "topics": [
            topic_class(
                name=topic.name,
                partitions=[
                    partition_class(partition_index=one.partition_index, error_code=code)
                    for one in topic.partitions
                ],
            )
            for topic in asked.topics
        ]
    }


def _code_of_each_batch(asked: Any, code: int, response: Any) -> dict[str, Any]:
    """Return the members of Produce's answer."""
    topic_class = response.TopicProduceResponse
    return {
        "responses": [
            topic_class(
                name=topic.name,
                topic_id=topic.topic_id,
                partition_responses=[
                    topic_class.PartitionProduceResponse(
                        index=one.index, error_code=code, base_offset=-1
                    )
                    for one in topic.partition_data
                ],
            )
            for topic in asked.topic_data
        ]
    }


_ANSWERS: Final[Mapping[str, tuple[Any, Any, Any]]] = {
    "OffsetCommit": (
        consumer.OffsetCommitRequest,
        consumer.OffsetCommitResponse,
        _code_of_each_partition,
    ),
    "TxnOffsetCommit": (
        producer.TxnOffsetCommitRequest,
        producer.TxnOffsetCommitResponse,
        _code_of_each_partition,
    ),
    "Produce": (producer.ProduceRequest, producer.ProduceResponse, _code_of_each_batch),
    "Heartbeat": (consumer.HeartbeatRequest, consumer.HeartbeatResponse, _code_alone),
    "JoinGroup": (consumer.JoinGroupRequest, consumer.JoinGroupResponse, _code_alone),
    "SyncGroup": (consumer.SyncGroupRequest, consumer.SyncGroupResponse, _code_alone),
    "EndTxn": (producer.EndTxnRequest, producer.EndTxnResponse, _code_alone),
    "AddOffsetsToTxn": (
        producer.AddOffsetsToTxnRequest,
        producer.AddOffsetsToTxnResponse,
        _code_alone,
    ),
    "InitProducerId": (
        producer.InitProducerIdRequest,
        producer.InitProducerIdResponse,
        _code_alone,
    ),
}
