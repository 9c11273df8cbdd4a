"""Spans: the attributes, links and sampling of one span for each micro-batch."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from tests.support.clocks import HandClock
from tests.support.records import invalid, raw
from worker.core.records import Headers, InvalidRecord, MicroBatch, WorkItem
from worker.runtime.spans import BatchSpans, exporting
from worker.settings import load

PARENT = f"00-{'1' * 32}-{'2' * 16}-01".encode()
OTHER = f"00-{'3' * 32}-{'4' * 16}-00".encode()


class Traced:
    """Spans that are exported to memory."""

    def __init__(self, ratio: float = 1.0, **more: Any) -> None:
        chosen = {"tracing.sample_ratio": ratio, "input.topic": "texts.in", "kafka.group_id": "g"}
        self.clock, self._exporter = HandClock(), InMemorySpanExporter()
        settings = load(chosen | more, environ={}).settings
        self.spans: BatchSpans = exporting(settings, self.clock, self._exporter)

    def finished(self) -> tuple[ReadableSpan, ...]:
        self.spans.close()
        return self._exporter.get_finished_spans()


def batch(*entries: WorkItem | InvalidRecord, opened_at: float = 1000.0) -> MicroBatch:
    return MicroBatch(entries, "ready", opened_at, opened_at)


def texts(*headers: Headers) -> list[WorkItem]:
    return [WorkItem(raw(n, headers=own, partition=n % 2), "hi") for n, own in enumerate(headers)]


def test_a_span_follows_the_messaging_conventions() -> None:
    """It lasts from the poll of the first record until the last outcome is sent."""
    traced = Traced()
    traced.clock.now = 1002.0
    traced.spans.begin(batch(*texts((), ()), invalid(2), opened_at=1000.5))
    traced.clock.now = 1003.25
    traced.spans.end([])
    (span,) = traced.finished()
    assert (span.name, span.kind, span.parent) == ("process texts.in", SpanKind.CONSUMER, None)
    assert (span.start_time, span.end_time) == (1_000_500_000_000, 1_003_250_000_000)
    assert dict(span.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "texts.in",
        "messaging.consumer.group.name": "g",
        "messaging.client.id": "streamlabel",
        "messaging.batch.message_count": 3,
        "streamlabel.dead_letters": 0,
    }
    assert span.resource.attributes["service.name"] == "streamlabel"


def test_a_span_links_to_each_record_with_a_trace_context() -> None:
    """It does so whether or not the producer sampled; malformed contexts are ignored."""
    traced = Traced()
    broken = [b"", b"nonsense", b"\xff\xfe", f"00-{'0' * 32}-{'2' * 16}-01".encode()]
    headers: list[Headers] = [(("traceparent", value),) for value in (PARENT, OTHER, *broken)]
    traced.spans.begin(batch(*texts(*headers, (), (("tracestate", b"a=b"),))))
    traced.spans.end([])
    (span,) = traced.finished()
    links = [
        (f"{link.context.trace_id:x}", f"{link.context.span_id:x}", dict(link.attributes or {}))
        for link in span.links
    ]
    topic, partition = "messaging.destination.name", "messaging.destination.partition.id"
    offset = "messaging.kafka.offset"
    assert links == [
        ("1" * 32, "2" * 16, {topic: "in", partition: "0", offset: 0}),
        ("3" * 32, "4" * 16, {topic: "in", partition: "1", offset: 1}),
    ]


def test_a_large_micro_batch_is_linked_to_all_of_its_records() -> None:
    """The SDK keeps 128 links by default."""
    traced = Traced(**{"batch.max_records": 300})
    traced.spans.begin(batch(*texts(*[(("traceparent", PARENT),)] * 300)))
    traced.spans.end([])
    assert len(traced.finished()[0].links) == 300


def test_spans_end_in_the_order_in_which_they_began() -> None:
    traced = Traced()
    for number in (1, 2):
        traced.spans.begin(batch(*texts(*[()] * number)))
    carried = []
    for _ in range(2):
        trace = traced.spans.current()
        assert trace
        carried.append(trace.header.decode())
        traced.spans.end([])
    spans = traced.finished()
    counts = [(span.attributes or {})["messaging.batch.message_count"] for span in spans]
    assert counts == [1, 2]
    contexts = [span.get_span_context() for span in spans]
    assert carried == [f"00-{c.trace_id:032x}-{c.span_id:016x}-01" for c in contexts if c]


@pytest.mark.parametrize("ratio", [0.0, 0.25])
def test_an_unsampled_span_has_no_links_and_keeps_the_records_own_context(
    ratio: float,
) -> None:
    traced = Traced(ratio)
    seen = 0
    for _ in range(400):
        traced.spans.begin(batch(*texts((("traceparent", PARENT),))))
        seen += traced.spans.current() is not None
        traced.spans.end([])
    assert len(traced.finished()) == seen
    assert abs(seen / 400 - ratio) < 0.12  # six standard deviations


@pytest.mark.parametrize("odd", [b"\x1b[31m, =,,", b"a" * 100_000, b"\xff=\xfe"])
def test_tracestate_is_neither_read_nor_logged(
    odd: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """Otherwise a producer could fill the log with malformed values."""
    traced = Traced()
    traced.spans.begin(batch(*texts((("traceparent", PARENT), ("tracestate", odd)))))
    traced.spans.end([])
    (span,) = traced.finished()
    assert [f"{link.context.trace_id:x}" for link in span.links] == ["1" * 32]
    assert not caplog.records


class UnreachableCollector(SpanExporter):
    """Does not answer until it is released."""

    def __init__(self) -> None:
        self.asked, self.back = threading.Event(), threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.asked.set()
        self.back.wait(60)
        return SpanExportResult.SUCCESS


@pytest.mark.timeout(20)  # the SDK's own wait is half a minute
def test_an_unreachable_collector_does_not_delay_a_stop() -> None:
    away = UnreachableCollector()
    settings = load({"tracing.sample_ratio": 1}, environ={}).settings
    spans = exporting(settings, HandClock(), away)
    spans.begin(batch(*texts(())))
    spans.end([])
    try:
        spans.close()
        assert away.asked.is_set()  # the SDK waits for it, but `close` does not
    finally:
        away.back.set()


@pytest.mark.parametrize(
    ("name", "value", "service"),
    [
        ("OTEL_SERVICE_NAME", "mine", "mine"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=ours,a=b", "ours"),
        ("OTEL_RESOURCE_ATTRIBUTES", "a=b", "streamlabel"),
    ],
)
def test_the_otel_variables_name_the_service(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, service: str
) -> None:
    monkeypatch.setenv(name, value)
    traced = Traced()
    traced.spans.begin(batch(*texts(())))
    traced.spans.end([])
    assert traced.finished()[0].resource.attributes["service.name"] == service
