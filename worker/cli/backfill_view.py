"""The progress of a backfill: a bar on a terminal, a line of the log now and then elsewhere.

A finished range that can't be repeated is told here too.

Owns: the thread that reads the group's progress.
Thread: main; `progress` reads and shows.
Must not import: kafka, torch, transformers.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Final

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from worker import logs
from worker.clock import Clock
from worker.core.bounds import Bound, RangeProgress, read_note
from worker.core.counted import counted
from worker.core.records import Partition
from worker.core.speed import Speed, in_words
from worker.core.when import Span
from worker.errors import StreamlabelError
from worker.settings import Settings

log = logs.get_logger(__name__)

Read = Callable[[], RangeProgress]

_EVERY_ON_TERMINAL: Final = 1.0  # seconds
_EVERY_IN_LOG: Final = 10.0
_MOST_NAMED: Final = 5  # partitions
_NARROW: Final = 70  # columns; fewer have no room for a bar


def finished_text(group: str, span: Span, notes: Mapping[Partition, str]) -> str:
    """Return why the group of a finished range, whose places have moved since, labels nothing.

    Args:
        group: of the backfill.
        span: its range.
        notes: of its committed offsets.
    """
    bounds = {p: bound for p, note in sorted(notes.items()) if (bound := read_note(note))}
    parts = [
        f"{p.topic}[{p.partition}] {bound.start:,} to {bound.end:,}"
        for p, bound in bounds.items()
        if bound.end > bound.start
    ]
    if len(parts) > _MOST_NAMED:
        parts[_MOST_NAMED:] = [f"{len(parts) - _MOST_NAMED:,} more"]
    total = counted(sum(bound.end - bound.start for bound in bounds.values()), "offset")
    return (
        f"group {group!r} has labelled {span.name} already{_as_of(bounds.values())}: {total}"
        + (f" ({', '.join(parts)})" if parts else "")
        + ". These places mean another range by now: to label that, name another --group-id. "
        f"`streamlabel audit --group-id {group}`, with the same topics, audits the old one"
    )


def _as_of(bounds: Iterable[Bound]) -> str:
    times = [bound.at_ms for bound in bounds if bound.at_ms]
    if not times:
        return ""
    at = datetime.fromtimestamp(min(times) / 1000, UTC)
    return at.strftime(", as of %Y-%m-%d %H:%M:%S UTC")


class Watch:
    """Reads and shows a group's progress, as long as its `with` block runs.

    Args:
        read: returns the progress. A StreamlabelError that it raises is ignored: the worker reports
            a broker that is away.
        settings: of the log.
        clock: times the readings.
        quiet: on a terminal, log warnings only.
    """

    def __init__(self, read: Read, settings: Settings, clock: Clock, *, quiet: bool) -> None:
        self._read, self._clock = read, clock
        self._console = Console(stderr=True, highlight=False)
        self._level = "warning" if quiet and self._console.is_terminal else settings.log.level
        self._style = settings.log.format
        self._speed, self._stop = Speed(), threading.Event()
        logs.configure(self._level, self._style)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Show the progress meanwhile."""
        with contextlib.ExitStack() as stack:
            if self._console.is_terminal:
                live = stack.enter_context(
                    Live(self._console.render_str("starting"), console=self._console)
                )
                # A line of the log goes above the bar, by way of the live display's own stream.
                logs.configure(self._level, self._style)
                stack.callback(logs.configure, self._level, self._style)
                self._start(
                    stack, _EVERY_ON_TERMINAL, lambda now: live.update(self._bar(now), refresh=True)
                )
            else:
                self._start(stack, _EVERY_IN_LOG, self._line)
            yield

    def _start(
        self, stack: contextlib.ExitStack, every: float, show: Callable[[RangeProgress], None]
    ) -> None:
        def repeat() -> None:
            last = False
            while not last:
                last = self._stop.wait(every)  # the last reading follows the end of the work
                with contextlib.suppress(StreamlabelError):
                    progress = self._read()
                    if not progress.unknown:
                        self._speed.note(self._clock.monotonic(), progress.done)
                    show(progress)

        thread = threading.Thread(target=repeat, name="progress", daemon=True)
        thread.start()
        stack.callback(thread.join)
        stack.callback(self._stop.set)

    def _line(self, progress: RangeProgress) -> None:
        if progress.unknown:
            return
        speed, left = self._speed.per_second, self._speed.seconds_left(progress.total)
        log.info(
            "backfill",
            done=progress.done,
            total=progress.total,
            percent=round(100 * _share(progress), 1),
            **({} if speed is None else {"per_second": round(speed, 1)}),
            **({} if left is None else {"seconds_left": round(left)}),
        )

    def _bar(self, progress: RangeProgress) -> RenderableType:
        if progress.unknown:
            return self._console.render_str("starting: loading the model")
        speed, left = self._speed.per_second, self._speed.seconds_left(progress.total)
        words = [
            f"{_share(progress):.0%}",
            f"{progress.done:,} of {progress.total:,} offsets",
            "" if speed is None else f"{speed:,.0f}/s",
            "" if left is None else f"{in_words(left)} left",
        ]
        if self._console.width < _NARROW:
            return self._console.render_str(" ".join((words[0], words[1], words[3])))
        row = Table.grid(expand=True, padding=(0, 1))
        row.add_column(ratio=1)
        for _ in words:
            row.add_column(no_wrap=True, justify="right")
        row.add_row(ProgressBar(total=max(1, progress.total), completed=progress.done), *words)
        return row


def _share(progress: RangeProgress) -> float:
    return progress.done / progress.total if progress.total else 1.0
