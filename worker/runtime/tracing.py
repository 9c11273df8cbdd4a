"""What the pipeline tells whoever traces it. Imports core; no telemetry: `spans` has that.

One trace per micro-batch: it is what is worked on, and a span for each record of a busy stream
would cost more than the record. Stages keep the order, so that the micro-batch that is published is
the oldest one that was begun, and none needs to carry its span along.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from worker.core.records import Encoded, MicroBatch, Trace


class Tracing(Protocol):
    """Follows micro-batches through the pipeline."""

    def begin(self, batch: MicroBatch) -> None:
        """Tokenise thread: it is the next one."""
        ...

    def current(self) -> Trace | None:
        """Publish thread: the trace of the oldest one; None where it is not sampled."""
        ...

    def end(self, outcomes: Sequence[Encoded]) -> None:
        """Publish thread: the oldest one's outcomes are on their way to the broker."""
        ...

    def close(self) -> None:
        """Any thread: send what was not sent yet."""
        ...


class Untraced:
    """Nobody wants to know."""

    def begin(self, batch: MicroBatch) -> None: ...
    def current(self) -> None: ...
    def end(self, outcomes: Sequence[Encoded]) -> None: ...
    def close(self) -> None: ...
