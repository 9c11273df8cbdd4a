"""What a child tells its parent: health, metrics and the last posts, one JSON line a second.

The child's side runs on a thread of its own, which only reads; the parent's side is a pure function
of a line. Imports the ground floor.
"""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Self

from prometheus_client import Metric

from worker.errors import StreamlabelError
from worker.runtime.health import Health, Verdict
from worker.runtime.onlookers import Onlookers
from worker.runtime.page.picture import Exported
from worker.runtime.page.posts import Post

EVERY = 1.0  # seconds


@dataclass(frozen=True)
class Report:
    """One line. `reason` is set in the last one of a child that ends on a fault."""

    live: Verdict
    ready: Verdict
    metrics: list[Metric] = field(default_factory=list)
    reason: str = ""
    posts: Sequence[Post] = ()

    def encode(self) -> bytes:
        """As a line; floats keep every digit, so that what is read back is what was counted."""
        families = [
            (
                m.name,
                m.documentation,
                m.type,
                m.unit,
                [(s.name, s.labels, s.value) for s in m.samples],
            )
            for m in self.metrics
        ]
        line = {
            "live": self.live,
            "ready": self.ready,
            "metrics": families,
            "reason": self.reason,
            "posts": self.posts,
        }
        return json.dumps(line).encode() + b"\n"


def decode(line: bytes) -> Report:
    """A line of `Report.encode`; the child is of the same release as its parent.

    Raises:
        ValueError: it is none: the process was killed in the middle of a line.
    """
    told: dict[str, Any] = json.loads(line)
    return Report(
        live=tuple(told["live"]),
        ready=tuple(told["ready"]),
        metrics=[_family(*one) for one in told["metrics"]],
        reason=told["reason"],
        posts=tuple(told["posts"]),
    )


def _family(name: str, documentation: str, kind: str, unit: str, samples: list[Any]) -> Metric:
    family = Metric(name, documentation, kind, unit)
    for sample in samples:
        family.add_sample(*sample)
    return family


class Reporter:
    """Reports for the length of a `with`, whatever the main thread is busy with.

    The last report comes at its end, with the error that ended it. Closes the pipe.
    """

    def __init__(
        self, pipe: BinaryIO, metrics: Exported, health: Health, onlookers: Onlookers | None
    ) -> None:
        self._pipe, self._metrics, self._health = pipe, metrics, health
        self._onlookers = onlookers
        self._ended = threading.Event()
        self._reason = ""
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None:
            known = isinstance(error, StreamlabelError)
            self._reason = str(error) if known else f"{type(error).__name__}: {error}"
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self._pipe.close()

    def _run(self) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, which stdin tells whom it concerns
            self._send()
            while not self._ended.wait(EVERY):
                self._send()
            self._send()

    def _send(self) -> None:
        report = Report(
            self._health.live(),
            self._health.ready(),
            list(self._metrics.registry.collect()),
            self._reason,
            self._onlookers.posts.latest() if self._onlookers else (),
        )
        self._pipe.write(report.encode())
        self._pipe.flush()
