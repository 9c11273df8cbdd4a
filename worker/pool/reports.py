"""What a child tells its parent: health, metrics and the last posts, one JSON line a second.

An answer of the box comes with a report of its own, at once. The child's side runs on a thread of its
own, the only one that writes to the pipe; it reads what others count and answer. The parent's side is
a pure function of a line. Imports `box` and the ground floor.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import Any, BinaryIO, Self

from prometheus_client import Metric
from prometheus_client.samples import Exemplar

from worker.core.records import Prediction
from worker.errors import StreamlabelError
from worker.http.ask import Answer
from worker.http.feeds import PageFeeds
from worker.http.health import Health, Verdict
from worker.http.recent_posts import Post
from worker.http.snapshot import MetricsSource

EVERY = 1.0  # seconds


@dataclass(frozen=True)
class ChildReport:
    """One line.

    Attributes:
        reason: set in the last one of a child that ends on a fault.
        answer: to the parent's question, or the words that say why there is none.
    """

    live: Verdict
    ready: Verdict
    metrics: list[Metric] = field(default_factory=list)
    reason: str = ""
    posts: Sequence[Post] = ()
    answer: Answer | str | None = None

    def encode(self) -> bytes:
        """As a line; floats keep every digit, so that what is read back is what was counted."""
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
            "posts": self.posts,
            "answer": asdict(self.answer) if isinstance(self.answer, Answer) else self.answer,
        }
        return json.dumps(line).encode() + b"\n"


def decode(line: bytes) -> ChildReport:
    """A line of `ChildReport.encode`; the child is of the same release as its parent.

    Raises:
        ValueError: it is none: the process was killed in the middle of a line.
    """
    told: dict[str, Any] = json.loads(line)
    return ChildReport(
        live=tuple(told["live"]),
        ready=tuple(told["ready"]),
        metrics=[_family(*one) for one in told["metrics"]],
        reason=told["reason"],
        posts=tuple(told["posts"]),
        answer=_answer(told["answer"]),
    )


def _answer(told: dict[str, Any] | str | None) -> Answer | str | None:
    if not isinstance(told, dict):
        return told
    prediction = told["prediction"]
    prediction["probabilities"] = tuple(prediction["probabilities"])
    return Answer(tuple(told["labels"]), Prediction(**prediction), told["seconds"])


def _family(name: str, documentation: str, kind: str, unit: str, samples: list[Any]) -> Metric:
    family = Metric(name, documentation, kind, unit)
    for sample, labels, value, exemplar in samples:
        family.add_sample(sample, labels, value, None, exemplar and Exemplar(*exemplar))
    return family


class Reporter:
    """Reports for the length of a `with`, whatever the main thread is busy with.

    The last report comes at its end, with the error that ended it. Closes the pipe.
    """

    def __init__(
        self, pipe: BinaryIO, metrics: MetricsSource, health: Health, feeds: PageFeeds | None
    ) -> None:
        self._pipe, self._metrics, self._health = pipe, metrics, health
        self._feeds = feeds
        self._wake, self._ended = threading.Event(), False
        self._reason = ""
        self._answer: Answer | str | None = None
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            known = isinstance(error, StreamlabelError)
            self._reason = str(error) if known else f"{type(error).__name__}: {error}"
        self._ended = True
        self._wake.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._pipe.close()

    def hear(self, line: bytes) -> None:
        """Leash thread: pass a question of the parent's on to the box."""
        if self._feeds:
            asked = self._feeds.box.ask(json.loads(line)["text"])
            asked.add_done_callback(self._answered)

    def _answered(self, asked: Future[Answer]) -> None:
        # On a stage's thread, which must not wait for the pipe. There is but one answer at a time:
        # the parent asks nothing more before it has come.
        error = asked.exception()
        self._answer = str(error) if error else asked.result()
        self._wake.set()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, which stdin tells whom it concerns
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
            self._feeds.posts.latest() if self._feeds else (),
            answer,
        )
        self._pipe.write(report.encode())
        self._pipe.flush()
