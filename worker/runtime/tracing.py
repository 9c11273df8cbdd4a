"""Defines how the pipeline reports micro-batches to tracing.

Owns: the `Tracing` protocol, and `Untraced`, which records nothing.
Thread: as each method says.
Must not import: opentelemetry; `spans` does.

There is one trace for each micro-batch, because a micro-batch is the unit of work, and a span for
each record of a busy stream would cost more than the record. Stages keep the order, so the
micro-batch that is published is the oldest one begun, and none needs to carry its span along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from worker.core.records import Encoded, MicroBatch, Trace


class Tracing(Protocol):
    """Follows micro-batches through the pipeline."""

    def begin(self, batch: MicroBatch) -> None:
        """Tokenise thread: begin to follow a micro-batch."""
        ...

    def current(self) -> Trace | None:
        """Publish thread: return the oldest micro-batch's trace, or None if it is not sampled."""
        ...

    def end(self, outcomes: Sequence[Encoded]) -> None:
        """Publish thread: note that the oldest micro-batch's outcomes were sent to the broker."""
        ...

    def close(self) -> None:
        """Any thread: export the spans that are left."""
        ...


class Untraced:
    """Follows nothing."""

    def begin(self, batch: MicroBatch) -> None: ...
    def current(self) -> None: ...
    def end(self, outcomes: Sequence[Encoded]) -> None: ...
    def close(self) -> None: ...
