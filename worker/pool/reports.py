"""Reports from a child to its parent, one JSON line a second: health, metrics, notes, the model.

Owns: in the child, the pipe to the parent and the thread `reports`, its only writer.
Thread: reports sends, parent-watch asks, infer or tokenise leave the answer; `decode` runs in the
    parent, on `reports-PID`.
Must not import: kafka, torch, transformers.

The answer to a question comes in a report of its own, at once.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Self

from prometheus_client import Metric
from prometheus_client.samples import Exemplar

from worker.errors import StreamlabelError
from worker.http.ask import Answer
from worker.http.feeds import PageFeeds
from worker.http.health import Health, Verdict
from worker.http.history import MetricsSource
from worker.http.notes import Notes

EVERY = 1.0  # seconds


@dataclass(frozen=True)
class ChildReport:
    """One report.

    Attributes:
        live, ready: the worker's health.
        metrics: all families of its registry.
        reason: the error that ended the worker; in its last report only.
        notes: what it tells the page.
        answer: the answer to the parent's question, or the reason why there is none.
        model: the model in use and its last change, as `orders.ModelOrders.state` returns them;
            empty before there is a worker.
    """

    live: Verdict
    ready: Verdict
    metrics: list[Metric] = field(default_factory=list)
    reason: str = ""
    notes: Notes = field(default_factory=Notes)
    answer: Answer | str | None = None
    model: Mapping[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Encode as one line. Floats keep every digit, so no count changes on the way."""
        families = [
            (
                m.name,
                m.documentation,
                m.type,
                m.unit,
                [(s.name, s.labels, s.value, s.exemplar) for s in m.samples],
            )
            for m in self.metrics
        ]
        line = {
            "live": self.live,
            "ready": self.ready,
            "metrics": families,
            "reason": self.reason,
            "notes": asdict(self.notes),
            "answer": asdict(self.answer) if isinstance(self.answer, Answer) else self.answer,
            "model": self.model,
        }
        return json.dumps(line).encode() + b"\n"


def decode(line: bytes) -> ChildReport:
    """Decode a line of `ChildReport.encode`; child and parent are of the same release.

    Raises:
        ValueError: the line is incomplete: the process was killed while it wrote.
    """
    document: dict[str, Any] = json.loads(line)
    answer: dict[str, Any] | str | None = document["answer"]
    return ChildReport(
        live=tuple(document["live"]),
        ready=tuple(document["ready"]),
        metrics=[_family(*family) for family in document["metrics"]],
        reason=document["reason"],
        notes=Notes(**{name: tuple(entries) for name, entries in document["notes"].items()}),
        answer=Answer(**answer) if isinstance(answer, dict) else answer,
        model=document["model"],
    )


def _family(name: str, documentation: str, kind: str, unit: str, samples: list[Any]) -> Metric:
    family = Metric(name, documentation, kind, unit)
    for sample, labels, value, exemplar in samples:
        family.add_sample(sample, labels, value, None, exemplar and Exemplar(*exemplar))
    return family


class Reporter:
    """Sends reports for the length of a `with` block, from a thread of its own.

    At its end it sends the last report, with the error that left the block, and closes the pipe.

    Attributes:
        model: returns what the reports say of the model.
    """

    def __init__(
        self, pipe: BinaryIO, metrics: MetricsSource, health: Health, feeds: PageFeeds | None
    ) -> None:
        self._pipe, self._metrics, self._health = pipe, metrics, health
        self._feeds = feeds
        self._wake, self._ended = threading.Event(), False
        self._reason = ""
        self._answer: Answer | str | None = None
        self.model: Callable[[], Mapping[str, Any]] = dict
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            # The child's log has more; the parent's reason leaves the log for other places.
            self._reason = (
                error.summary if isinstance(error, StreamlabelError) else type(error).__name__
            )
        self._ended = True
        self._wake.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._pipe.close()

    def wake(self) -> None:
        """Send a report at once. Any thread."""
        self._wake.set()

    def ask(self, text: str, record: Mapping[str, Any] | None = None) -> None:
        """Pass a question of the parent on to the ask queue. On the thread `parent-watch`."""
        if self._feeds:
            answer = self._feeds.ask_queue.ask(text, record)
            answer.add_done_callback(self._answered)

    def _answered(self, answer: Future[Answer]) -> None:
        # On a stage's thread, which must not wait for the pipe. One slot is enough: the parent asks
        # nothing more before it has the answer.
        error = answer.exception()
        self._answer = str(error) if error else answer.result()
        self._wake.set()

    def _run(self) -> None:
        # A broken pipe: the parent is gone. `parent-watch` sees it too, and stops the worker.
        with contextlib.suppress(OSError):
            while not self._ended:
                self._send()
                self._wake.wait(EVERY)
                self._wake.clear()
            self._send()

    def _send(self) -> None:
        answer, self._answer = self._answer, None
        report = ChildReport(
            self._health.live(),
            self._health.ready(),
            list(self._metrics.registry.collect()),
            self._reason,
            self._feeds.notes() if self._feeds else Notes(),
            answer,
            self.model(),
        )
        self._pipe.write(report.encode())
        self._pipe.flush()
