"""Creates a span for each micro-batch, by OpenTelemetry's messaging conventions.

Owns: the open spans, and the SDK that exports them.
Thread: the tokenise thread begins spans, the publish thread ends them, a thread of the SDK exports
    them.
Must not import: kafka, inference, cli. Needs the extra `tracing`, and is imported only if
    `tracing.sample_ratio` is above 0.

The span is the root of a trace of its own and LINKS to the traces that its records came with,
because a micro-batch has many parents (https://opentelemetry.io/docs/specs/semconv/messaging/
messaging-spans, "Batch receiving"). Results carry the context of the span, so their readers can
follow the links back. Records of a micro-batch that is not sampled keep the context that they came
with.
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
from worker.settings import KafkaSettings, Settings, WorkerTopics

_CLOSE_TIMEOUT = 2.0  # seconds; an unreachable collector must not delay a stop
_NS_PER_MS = 1_000_000
_NS_PER_S = 1_000_000_000


def exporting(settings: Settings, clock: Clock, exporter: SpanExporter | None = None) -> BatchSpans:
    """Return spans that are exported to a collector, as the OTEL_* variables configure.

    Args:
        settings: of the worker; `tracing.sample_ratio` is above 0.
        clock: the one that stamps micro-batches.
        exporter: replaces the collector.
    """
    resource = Resource.create()
    if str(resource.attributes[SERVICE_NAME]).startswith("unknown_service"):  # no variable set it
        resource = resource.merge(Resource({SERVICE_NAME: "streamlabel"}))
    provider = TracerProvider(
        sampler=TraceIdRatioBased(settings.tracing.sample_ratio),
        resource=resource,
        # The SDK's default of 128 would omit records of a large micro-batch.
        span_limits=SpanLimits(max_links=settings.batch.max_records),
        shutdown_on_exit=False,
    )
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    return BatchSpans(provider, settings.kafka, settings.topics, clock)


class BatchSpans:
    """Implements `Tracing`.

    Args:
        provider: creates and exports the spans; `close` shuts it down.
        kafka: names the group and the client.
        topics: name the input. Of several, each link names its own.
        clock: the one that stamps micro-batches.
    """

    def __init__(
        self, provider: TracerProvider, kafka: KafkaSettings, topics: WorkerTopics, clock: Clock
    ) -> None:
        self._provider, self._clock = provider, clock
        self._tracer = provider.get_tracer("streamlabel")
        self._name = " ".join(("process", topics.pattern or ",".join(topics.inputs)))
        self._attributes = {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.consumer.group.name": kafka.group_id,
            "messaging.client.id": kafka.client_id,
        }
        if len(topics.inputs) == 1:
            self._attributes["messaging.destination.name"] = topics.inputs[0]
        # One thread appends on the right and another pops on the left; a deque needs no lock.
        self._open: deque[Span] = deque()

    def begin(self, batch: MicroBatch) -> None:
        """Begin a span that started when the first record was polled."""
        waited = self._clock.monotonic() - batch.opened_at
        span = self._tracer.start_span(
            self._name,
            context=Context(),
            kind=SpanKind.CONSUMER,
            attributes=self._attributes | {"messaging.batch.message_count": len(batch)},
            start_time=self._clock.wall_ms() * _NS_PER_MS - round(waited * _NS_PER_S),
        )
        if span.is_recording():  # links are costly, and a span that is not sampled needs none
            for record, origin in _origins(batch):
                attributes: dict[str, str | int] = {
                    "messaging.destination.name": record.ref.topic,
                    "messaging.destination.partition.id": str(record.ref.partition),
                    "messaging.kafka.offset": record.ref.offset,
                }
                span.add_link(origin, attributes)
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
        """Export the spans that are left, within two seconds."""
        # The SDK waits half a minute, or for ever, for an export that is being retried.
        shutdown = threading.Thread(target=self._provider.shutdown, name="spans", daemon=True)
        shutdown.start()
        shutdown.join(_CLOSE_TIMEOUT)


def _origins(batch: MicroBatch) -> Iterator[tuple[RawRecord, SpanContext]]:
    """Yield the records that came with a trace context, and that context."""
    for entry in batch.entries:
        # A link does not need `tracestate`, and the SDK logs a warning if it is malformed.
        headers = dict(entry.record.headers)
        if value := headers.get(TRACE_HEADERS[0]):
            carrier = {TRACE_HEADERS[0]: value.decode("latin-1")}
            context = TraceContextTextMapPropagator().extract(carrier, Context())
            origin = get_current_span(context).get_span_context()
            if origin.is_valid:
                yield entry.record, origin
