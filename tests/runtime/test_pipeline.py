"""Pipeline: three stages in a row; publishing is retried, and no other work is."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.doubles import outcome
from tests.support.records import CARD, item
from tests.support.workers import wait_until
from worker.core.pace import Pace
from worker.core.records import (
    Classified,
    Encoded,
    Filtered,
    MicroBatch,
    Outcome,
    Prediction,
    Trace,
)
from worker.errors import AccessDenied, BrokerAway, Fatal
from worker.http.feeds import ModelFeeds
from worker.metrics import Metrics
from worker.runtime import publishing
from worker.runtime.pipeline import Pipeline, PipelineObservers
from worker.runtime.progress import Progress
from worker.runtime.stage import StageControl

TRACE = Trace("abc", b"00-abc-01")


class Tokenised(NamedTuple):
    """A micro-batch, and the labeller that tokenised it."""

    entries: tuple[Any, ...]
    labeller: Any
    tokens: int

    def __len__(self) -> int:
        return len(self.entries)

    def infer(self, step: Callable[[], None]) -> list[Any]:
        outcomes: list[Any] = self.labeller.infer(self, step)
        return outcomes


class Everything:
    """Labeller, encoder, sink, tracing and feeds in one; notes its calls in order.

    Attributes:
        before: called with the name of each thing before it is done; may raise or wait.
    """

    card = CARD

    def __init__(self) -> None:
        self.before: Callable[[str], None] = lambda _: None
        self.done: list[str] = []
        self.published: list[list[int]] = []
        self.noted: list[Outcome] = []
        self.feeds = ModelFeeds(note=self.note)
        self.encoded: Callable[[Any], list[Encoded]] = lambda entry: [
            outcome(entry.record.ref.offset)
        ]

    def aside(self) -> Any:
        """Make no labeller."""

    def _do(self, what: str) -> None:
        self.before(what)
        self.done.append(what)

    def tokenise(self, batch: MicroBatch, step: Callable[[], None]) -> Any:
        self._do("tokenise")
        step()
        return Tokenised(batch.entries, self, batch.tokens)

    def infer(self, batch: Tokenised, step: Callable[[], None]) -> list[Any]:
        self._do("infer")
        step()
        return list(batch.entries)

    def encode_batch(
        self, entries: Sequence[Any], *, now_ms: int, now: float, trace: Trace
    ) -> list[Encoded]:
        assert trace is TRACE
        return [one for entry in entries for one in self.encoded(entry)]

    def note(self, outcomes: Sequence[Outcome]) -> None:
        self.noted += outcomes
        self._do("note")

    def publish(self, outcomes: Sequence[Encoded]) -> None:
        self._do("publish")
        self.published.append([one.ref.offset for one in outcomes])

    def advance(self) -> None:
        self._do("advance")

    def close(self, timeout: float) -> None:
        self._do("close")

    def begin(self, batch: MicroBatch) -> None:
        self._do("begin")

    def current(self) -> Trace:
        return TRACE

    def end(self, outcomes: Sequence[Encoded]) -> None:
        self._do("end")


class Bench:
    """A pipeline that uses `Everything` for each of its parts."""

    def __init__(
        self, shadow: Any = None, tokenise: Callable[[Any], None] = lambda _: None
    ) -> None:
        self.all, self.clock, self.metrics = Everything(), HandClock(), Metrics()
        self.progress = Progress(10.0, self.metrics, self.clock)
        self.crashes: list[tuple[str, BaseException]] = []
        everything: Any = self.all
        feeds = replace(self.all.feeds, tokenise=tokenise)
        self.pipeline = Pipeline(
            everything,
            everything,
            everything,
            Pace(None),
            StageControl(lambda stage, error: self.crashes.append((stage, error)), self.clock),
            PipelineObservers(self.metrics, everything, self.progress.stages, feeds, shadow=shadow),
        )

    def offer(self, *offsets: int) -> bool:
        entries = tuple(item(offset) for offset in offsets)
        return self.pipeline.offer(MicroBatch(entries, "ready", self.clock.now, self.clock.now, 5))

    def work(self) -> list[str]:
        """Return the calls made for batches, without those of an idle sink."""
        return [what for what in self.all.done if what != "advance"]

    def wait_for(self, what: str, times: int = 1) -> None:
        wait_until(lambda: self.all.done.count(what) >= times, what=f"{what} x {times}")


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.all.before = lambda _: None
    bench.pipeline.close(10)


def test_the_infer_thread_gives_a_shadow_its_outcomes_and_the_time_between() -> None:
    """A micro-batch is published although the shadow still works on it."""
    threads: dict[str, set[str]] = {"note": set(), "between": set()}
    published = threading.Event()

    class Waiting:
        def note(self, outcomes: Sequence[Any], seconds: float) -> None:
            threads["note"].add(threading.current_thread().name)
            assert (len(outcomes), seconds) == (2, 0.0)

        def between(self) -> None:
            threads["between"].add(threading.current_thread().name)
            if threads["note"]:
                published.wait(60)

    shadowed = Bench(shadow=Waiting())
    try:
        shadowed.pipeline.start()
        shadowed.offer(1, 2)
        shadowed.wait_for("note")
        published.set()
        assert shadowed.all.published == [[1, 2]]
        assert threads == {"note": {"infer"}, "between": {"infer"}}
    finally:
        published.set()
        shadowed.pipeline.close(10)
    assert not shadowed.crashes


def test_a_batch_goes_through_all_stages_and_is_published_in_order(bench: Bench) -> None:
    bench.pipeline.start()
    assert bench.offer(3, 1, 2)
    bench.wait_for("note")
    assert bench.all.published == [[3, 1, 2]]
    assert bench.work() == ["begin", "tokenise", "infer", "publish", "end", "note"]
    for stage in ("queue", "tokenise", "infer"):
        labels = {"stage": stage}
        name = "streamlabel_stage_seconds_count"
        assert bench.metrics.registry.get_sample_value(name, labels) == 1
    assert bench.crashes == []


def test_one_batch_waits_and_the_next_is_not_accepted(bench: Bench) -> None:
    """The threads are not started, so the batch stays in the first inbox."""
    assert bench.pipeline.has_room
    assert bench.offer(0)
    assert not bench.pipeline.has_room
    assert not bench.offer(1)
    assert [stage.held for stage in bench.progress.stages] == [1, 0, 0]


def test_a_batch_is_demanded_at_once_while_the_model_has_no_work(bench: Bench) -> None:
    assert bench.pipeline.demand(1).at <= bench.clock.now
    bench.offer(0)
    assert bench.pipeline.demand(1).at > bench.clock.now


def test_an_idle_sink_is_advanced(bench: Bench) -> None:
    """A commit may become due, or a producer may have to be replaced."""
    bench.pipeline.start()
    bench.wait_for("advance", 2)
    assert bench.work() == []


def failing(names: Sequence[str], times: int, error: Exception) -> Callable[[str], None]:
    left = iter(range(times))

    def before(what: str) -> None:
        if what in names and next(left, None) is not None:
            raise error

    return before


def test_a_failed_publish_is_retried_by_advance_and_not_published_twice(bench: Bench) -> None:
    fail = failing(("publish", "advance"), 21, BrokerAway("just now"))
    publishing = threading.Event()

    def away(what: str) -> None:
        """Fail from the first publish on; an idle sink may be advanced before."""
        if what == "publish":
            publishing.set()
        if publishing.is_set():
            fail(what)

    bench.all.before = away
    began = bench.clock.now
    assert bench.offer(0)
    with capture_logs() as lines:
        bench.pipeline.start()
        bench.wait_for("note")
    assert bench.all.done.count("publish") == 0, "only the first attempt published, and it failed"
    assert bench.work()[-2:] == ["end", "note"]
    assert bench.clock.now > began
    attempts = [line["attempt"] for line in lines if line["event"].startswith("publish failed")]
    assert attempts == [0, 10, 20]
    assert bench.crashes == []


@pytest.mark.parametrize("error", [AccessDenied("no"), LookupError("odd")])
@pytest.mark.parametrize("place", ["tokenise", "infer", "publish", "advance", "end", "note"])
def test_a_stage_that_fails_is_reported_by_name(bench: Bench, place: str, error: Exception) -> None:
    bench.all.before = failing((place,), 1, error)
    if place != "advance":
        bench.offer(0)
    bench.pipeline.start()
    wait_until(lambda: bool(bench.crashes), what="it is reported")
    stage = place if place in ("tokenise", "infer") else "publish"
    assert bench.crashes == [(stage, error)]


# -- the end -----------------------------------------------------------------------------------


def test_a_batch_that_is_not_published_by_the_end_is_dropped_and_not_observed(bench: Bench) -> None:
    tried = threading.Event()

    def away(what: str) -> None:
        if what in ("publish", "advance"):
            tried.set()
            raise BrokerAway("for ever")

    bench.all.before = away
    bench.offer(0)
    bench.pipeline.start()
    assert tried.wait(30)
    bench.pipeline.close(30)
    assert "end" not in bench.all.done
    assert "note" not in bench.all.done
    assert bench.all.done[-1] == "close"
    assert bench.crashes == []


def test_a_retry_that_waits_ends_with_the_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait of up to 10 s went on after the worker had given up."""
    monkeypatch.setattr(publishing, "backoff", lambda _: 1e9)
    bench.all.before = failing(("publish",), 1, BrokerAway("just now"))
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            bench.pipeline._control.cancelled.set()

    monkeypatch.setattr(bench.clock, "sleep", sleep)
    bench.offer(0)
    bench.pipeline.start()
    for stage in bench.pipeline.stages:
        stage.join(30)
    assert slept == [0.5] * 3
    assert bench.all.done.count("advance") == 0


def test_close_does_not_wait_longer_for_a_stage_that_hangs(bench: Bench) -> None:
    reached, let_go = threading.Event(), threading.Event()

    def hang(what: str) -> None:
        if what == "infer":
            reached.set()
            let_go.wait(60)

    bench.all.before = hang
    bench.offer(0)
    bench.pipeline.start()
    assert reached.wait(30)
    bench.pipeline.close(0.2)
    assert bench.all.done[-1] == "close"
    let_go.set()
    for stage in bench.pipeline.stages:
        stage.join(30)
    assert bench.all.published == []


def test_a_pipeline_that_was_never_started_closes_its_sink(bench: Bench) -> None:
    bench.pipeline.close(1)
    assert bench.all.done == ["close"]


def test_a_sink_that_does_not_close_cleanly_is_logged(bench: Bench) -> None:
    bench.all.before = failing(("close",), 1, Fatal("dropped 3 records"))
    with capture_logs() as lines:
        bench.pipeline.close(1)
    assert [line["reason"] for line in lines] == ["dropped 3 records"]


def test_an_unexpected_error_of_the_sink_reaches_the_caller(bench: Bench) -> None:
    bench.all.before = failing(("close",), 1, RuntimeError("broken"))
    with pytest.raises(RuntimeError, match="broken"):
        bench.pipeline.close(1)


class Model:
    """A labeller that notes the offsets which it tokenised, and those that it labelled."""

    def __init__(self) -> None:
        self.card = replace(CARD)
        self.tokenised: list[int] = []
        self.labelled: list[int] = []

    def aside(self) -> Any:
        """Make no labeller."""

    def tokenise(self, batch: MicroBatch, step: Callable[[], None]) -> Any:
        self.tokenised += [entry.record.ref.offset for entry in batch.entries]
        return Tokenised(batch.entries, self, batch.tokens)

    def infer(self, batch: Tokenised, step: Callable[[], None]) -> list[Any]:
        self.labelled += [entry.record.ref.offset for entry in batch.entries]
        return list(batch.entries)


def test_a_batch_stays_with_the_model_that_tokenised_it(bench: Bench) -> None:
    """The model changes while one batch is being published and others wait in each stage."""
    old, new = Model(), Model()
    release = threading.Event()
    bench.all.before = lambda what: release.wait(30) if what == "publish" else None
    bench.pipeline.use(old)  # type: ignore[arg-type]
    bench.pipeline.start()
    for offset in range(5):
        wait_until(lambda: bench.pipeline.has_room, what="room")
        bench.offer(offset)
    wait_until(lambda: old.tokenised == [0, 1, 2, 3, 4], what="all are tokenised")
    assert len(old.labelled) < 5
    bench.pipeline.use(new)  # type: ignore[arg-type]
    bench.offer(5)
    release.set()
    wait_until(lambda: len(bench.all.published) == 6, what="all are published")
    assert (old.labelled, new.tokenised, new.labelled) == ([0, 1, 2, 3, 4], [5], [5])
    assert bench.all.published == [[0], [1], [2], [3], [4], [5]]


def test_the_model_before_is_free_once_its_last_batch_is_published(bench: Bench) -> None:
    old, new = Model(), Model()
    bench.pipeline.use(old)  # type: ignore[arg-type]
    bench.pipeline.start()
    bench.offer(0)
    bench.wait_for("note")
    bench.pipeline.use(new)  # type: ignore[arg-type]
    freed = weakref.ref(old)
    del old
    wait_until(lambda: freed() is None, what="nothing holds it")


def test_a_question_goes_to_the_labeller_in_use() -> None:
    asked: list[Any] = []
    bench = Bench(tokenise=asked.append)
    used: Any = Model()
    bench.pipeline.use(used)
    bench.pipeline.start()
    wait_until(lambda: bool(asked), what="the stage looks for a question")
    bench.pipeline.close(10)
    assert asked[0] == used.aside


def test_the_page_is_told_of_what_was_published(bench: Bench) -> None:
    """The model labels two texts. A route drops the first, and another one copies the second."""

    def route(entry: Any) -> list[Encoded]:
        labelled = Classified(entry, Prediction((0.1, 0.9), 3, truncated=False), CARD)
        sent = replace(outcome(entry.record.ref.offset), outcome=labelled)
        if entry.record.ref.offset == 1:
            return [replace(sent, outcome=Filtered(entry, "route", "spam"), filtered="route")]
        return [replace(sent, copies=1), replace(sent, is_copy=True, route="urgent")]

    bench.all.encoded = route
    bench.pipeline.start()
    assert bench.offer(1, 2)
    bench.wait_for("note")
    dropped, kept = bench.all.noted
    assert isinstance(dropped, Filtered)
    assert isinstance(kept, Classified)
