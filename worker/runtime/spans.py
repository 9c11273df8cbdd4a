"""A span for each micro-batch, by OpenTelemetry's messaging conventions.

The tokenise thread begins them, the publish thread ends them, a thread of the SDK's exports them.
Needs the extra `tracing`, and is imported where `tracing.sample_ratio` is above 0 alone. Imports
core and the ground floor.

The span is the root of a trace of its own and LINKS to the traces that its records came with: a
micro-batch has many parents (https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans,
"Batch receiving"). Results carry its context on, so that whoever reads them can go back by the
links. Records of a micro-batch that is not sampled keep the context that they came with.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from opentelemetry.trace import Span, SpanContext, SpanKind, get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from worker.clock import Clock
from worker.core.records import TRACE_HEADERS, Encoded, MicroBatch, RawRecord, Trace
from worker.settings import Settings

_GOODBYE = 2.0  # seconds; a collector that is away must not hold a stop up
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000


def exporting(settings: Settings, clock: Clock, exporter: SpanExporter | None = None) -> BatchSpans:
    """Spans that go to a collector: where, and as which service, the OTEL_* variables say.

    Args:
        settings: of the worker; `tracing.sample_ratio` is above 0.
        clock: the pipeline's own.
        exporter: where they go instead.
    """
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # no variable says it
        resource = resource.merge(Resource({SERVICE_NAME: "streamlabel"}))
    provider = TracerProvider(
        sampler=TraceIdRatioBased(settings.tracing.sample_ratio),
        resource=resource,
        # The SDK's 128 would leave records of a large micro-batch out.
        span_limits=SpanLimits(max_links=settings.batch.max_records),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    return BatchSpans(provider, settings, clock)


class BatchSpans:
    """Implements `Tracing`.

    Args:
        provider: makes and exports the spans; ends with `close`.
        settings: name topic, group and client.
        clock: the one by which micro-batches are stamped.
    """

    def __init__(self, provider: TracerProvider, settings: Settings, clock: Clock) -> None:
        self._provider, self._clock = provider, clock
        self._tracer = provider.get_tracer("streamlabel")
        self._name = f"process {settings.input.topic}"
        self._attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.destination.name": settings.input.topic,
            "messaging.consumer.group.name": settings.kafka.group_id,
            "messaging.client.id": settings.kafka.client_id,
        }
        # One thread adds on the right, one takes from the left: a deque needs no lock for that.
        self._open: deque[Span] = deque()

    def begin(self, batch: MicroBatch) -> None:
        """It began when its first record was polled."""
        waited = self._clock.monotonic() - batch.opened_at
        span = self._tracer.start_span(
            self._name,
            context=Context(),
            kind=SpanKind.CONSUMER,
            attributes=self._attributes | {"messaging.batch.message_count": len(batch)},
            start_time=self._clock.wall_ms() * _NS_PER_MS - round(waited * _NS_PER_S),
        )
        if span.is_recording():  # links cost something; a span that nobody sees needs none
            for record, origin in _origins(batch):
                where: dict[str, str | int] = {
                    "messaging.destination.partition.id": str(record.ref.partition),
                    "messaging.kafka.offset": record.ref.offset,
                }
                span.add_link(origin, where)
        self._open.append(span)

    def current(self) -> Trace | None:
        span = self._open[0]
        if not span.is_recording():
            return None
        context = span.get_span_context()
        trace_id = f"{context.trace_id:032x}"
        return Trace(trace_id, f"00-{trace_id}-{context.span_id:016x}-01".encode())

    def end(self, outcomes: Sequence[Encoded]) -> None:
        span = self._open.popleft()
        dead = sum(outcome.reason is not None for outcome in outcomes)
        span.set_attribute("streamlabel.dead_letters", dead)
        span.end(self._clock.wall_ms() * _NS_PER_MS)

    def close(self) -> None:
        """Send what was not sent yet, if that takes no longer than a moment."""
        # The SDK waits half a minute, or for ever, for an export that is being tried again.
        last = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        last.start()
        last.join(_GOODBYE)


def _origins(batch: MicroBatch) -> Iterator[tuple[RawRecord, SpanContext]]:
    """The records that came with a context of their own."""
    for entry in batch.entries:
        # What vendors add (`tracestate`) is not needed for a link, and the SDK logs it when it is odd.
        headers = dict(entry.record.headers)
        if value := headers.get(TRACE_HEADERS[0]):
            carrier = {TRACE_HEADERS[0]: value.decode("latin-1")}
            context = TraceContextTextMapPropagator().extract(carrier, Context())
            origin = get_current_span(context).get_span_context()
            if origin.is_valid:
                yield entry.record, origin
