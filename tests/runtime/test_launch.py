"""Launcher: clients are closed if a later part of the worker can't be built."""

from __future__ import annotations

import dataclasses
import threading
from importlib.metadata import version
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.support.clocks import HandClock
from tests.support.doubles import Producer, Source
from tests.support.records import CARD
from tests.support.workers import ObedientModel
from worker.core.records import ModelCard
from worker.core.route_topics import with_label_topics
from worker.core.state import State
from worker.core.topics import TopicInfo
from worker.errors import AccessDenied, BrokerAway, RegistryAway, SchemaRefused, TopicMissing
from worker.metrics import Metrics
from worker.runtime import assembly, launch
from worker.runtime import topics as topics_of_a_worker
from worker.runtime.context import WorkerContext
from worker.runtime.formats import TopicFormats, plain_formats
from worker.runtime.launch import Launcher
from worker.runtime.progress import Progress
from worker.settings import Settings, deciding_digest, load


class Bench:
    """A launcher with a fake consumer and a fake producer."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.settings = load({}, environ={}).settings
        self.clock, self.stop = HandClock(), threading.Event()
        self.source, self.producer = Source(self.clock, self.stop.set), Producer()
        self.topics = {name: TopicInfo(1, 1) for name in self.settings.topics.all}
        patch.setattr(launch, "require", lambda _: self.topics)
        patch.setattr(launch, "count_members", lambda _: 2)
        patch.setattr(launch, "KafkaSource", lambda *_: self.source)
        patch.setattr(assembly, "Publisher", lambda *_: self.producer)

    def run(self, *, preflight: bool = False, card: ModelCard = CARD) -> None:
        metrics = Metrics()
        self.progress = Progress(120.0, metrics, self.clock)
        self.progress.move(State.WARMING)
        model = ObedientModel(card=card)
        context = WorkerContext(metrics, self.progress, self.clock, self.stop)
        launcher = Launcher(self.settings, context)
        if preflight:
            launcher.preflight()
        launcher.run(model, model)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    return Bench(monkeypatch)


def refusing(error: Exception) -> Any:
    def make(*_: object, **__: object) -> None:
        raise error

    return make


def test_a_worker_that_ran_closes_its_clients_once(bench: Bench) -> None:
    bench.run()
    assert bench.source.calls[-1:] == ["close"]
    assert bench.source.calls.count("close") == len(bench.producer.ends) == 1


def test_the_consumer_is_closed_if_the_producer_is_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(assembly, "Publisher", refusing(AccessDenied("no")))
    with pytest.raises(AccessDenied):
        bench.run()
    assert bench.source.calls == ["close"]


def test_the_consumer_is_closed_if_the_worker_is_stopped_while_it_waits_for_a_producer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object) -> None:
        bench.stop.set()
        raise BrokerAway("not yet")

    monkeypatch.setattr(assembly, "Publisher", away)
    bench.run()
    assert bench.source.calls == ["close"]


def test_the_start_is_logged_with_what_the_worker_connects(bench: Bench) -> None:
    with capture_logs() as lines:
        bench.run()
    start, join = (line for line in lines if line["event"] in ("starting", "joining group"))
    assert start["version"] == version("streamlabel")
    assert (start["broker"], start["group"]) == ("localhost:9092", "streamlabel")
    assert (start["inputs"], start["delivery"]) == (["texts.in"], "at_least_once")
    assert (start["output"], start["dead_letters"]) == bench.settings.topics.outputs
    assert {"model", "engine"} <= start.keys()
    assert (join["group"], join["other_members"]) == ("streamlabel", 2)


def test_labels_that_say_nothing_are_told_at_the_start(bench: Bench) -> None:
    with capture_logs() as lines:
        bench.run(card=dataclasses.replace(CARD, labels=("LABEL_0", "LABEL_1")))
    assert any("name them by decision.labels" in line["event"] for line in lines)


@pytest.mark.parametrize("part", ["build_labeller", "Pipeline", "build_worker"])
def test_consumer_and_producer_are_closed_if_the_rest_can_not_be_built(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    monkeypatch.setattr(launch, part, refusing(LookupError("odd")))
    with pytest.raises(LookupError):
        bench.run()
    assert bench.source.calls == ["close"]
    assert bench.producer.ends == ["close within 1 s"]


def test_the_consumer_is_closed_even_if_closing_the_producer_fails(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.producer.before = refusing(RuntimeError("broken"))
    monkeypatch.setattr(launch, "Pipeline", refusing(LookupError("odd")))
    with pytest.raises(RuntimeError, match="broken"):
        bench.run()
    assert bench.source.calls == ["close"]


# -- topics --------------------------------------------------------------------------------------

MISSING = "topics missing on localhost:9092: texts.in; create them with `streamlabel topics create`"


def require_after(bench: Bench, monkeypatch: pytest.MonkeyPatch, *errors: Exception) -> list[Any]:
    """Let the check of the topics fail so first; return what /readyz said each time."""
    left, ready = list(errors), list[Any]()

    def require(_: Settings) -> dict[str, TopicInfo]:
        if left:
            raise left.pop(0)
        return bench.topics

    def pause(*_: object, **__: object) -> float:
        ready.append(bench.progress.ready())
        return 0.0

    monkeypatch.setattr(launch, "require", require)
    monkeypatch.setattr(launch, "backoff", pause)
    return ready


def test_a_worker_waits_for_its_topics_if_it_is_told_to(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """/readyz and the log name them; the group is joined once they exist."""
    bench.settings = load({"wait_for_topics": True}, environ={}).settings
    ready = require_after(bench, monkeypatch, TopicMissing(MISSING), TopicMissing(MISSING))
    with capture_logs() as lines:
        bench.run()
    assert ready == [(False, f"waiting: {MISSING}")] * 2
    events = [line["event"] for line in lines]
    assert events.count("waiting for topics") == events.count("the topics exist now") == 1
    assert lines[events.index("waiting for topics")]["reason"] == MISSING
    assert events.index("the topics exist now") < events.index("joining group")


def test_a_worker_that_waits_for_topics_ends_at_a_stop(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.settings = load({"wait_for_topics": True}, environ={}).settings

    def require(_: Settings) -> None:
        bench.stop.set()
        raise TopicMissing(MISSING)

    monkeypatch.setattr(launch, "require", require)
    bench.run()
    assert bench.source.calls == []


def test_a_worker_that_waits_for_topics_ends_if_it_may_not_see_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Time does not change a missing right, so waiting would hide it."""
    bench.settings = load({"wait_for_topics": True}, environ={}).settings
    require_after(bench, monkeypatch, TopicMissing(MISSING), AccessDenied("no right to describe"))
    with pytest.raises(AccessDenied, match="no right to describe"):
        bench.run()


def test_without_the_setting_a_missing_topic_ends_the_worker(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_after(bench, monkeypatch, TopicMissing(MISSING))
    with pytest.raises(TopicMissing, match=r"texts\.in"):
        bench.run()
    assert bench.source.calls == []


# -- formats -------------------------------------------------------------------------------------


class Formats:
    """Formats whose registry answers after some tries."""

    def __init__(self, *answers: Exception) -> None:
        self.answers = list(answers)
        self.calls: list[str] = []

    def __call__(self, settings: Settings, *_: object) -> TopicFormats:
        self.calls.append("made")
        if self.answers:
            raise self.answers.pop(0)
        return dataclasses.replace(plain_formats(settings), resources=self)

    def __enter__(self) -> None:
        self.calls.append("started")

    def __exit__(self, *_: object) -> None:
        self.calls.append("closed")


def test_the_formats_end_after_the_worker(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    formats = Formats()
    monkeypatch.setattr(launch, "topic_formats", formats)
    bench.source.before = formats.calls.append
    bench.run()
    assert formats.calls == ["made", "started", "poll", "close", "closed"]


def test_the_start_waits_for_a_registry_that_is_away(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The group is not joined meanwhile, so its other members keep the partitions."""
    formats = Formats(RegistryAway("connection refused"), RegistryAway("connection refused"))
    monkeypatch.setattr(launch, "topic_formats", formats)
    ready: list[tuple[bool, str]] = []

    def pause(*_: object, **__: object) -> float:
        ready.append(bench.progress.ready())
        bench.clock.sleep(4)
        return 0.0

    monkeypatch.setattr(launch, "backoff", pause)
    with capture_logs() as lines:
        bench.run()
    assert formats.calls[:4] == ["made", "made", "made", "started"]
    assert ready == [(False, "the schema registry is away: connection refused")] * 2
    said = [line for line in lines if line["event"].startswith("the schema registry")]
    assert [line["event"] for line in said] == [
        "the schema registry is away; its answer is needed to start",
        "the schema registry is back",
    ]
    assert said[0]["reason"] == "connection refused"
    assert lines.index(said[-1]) < [line["event"] for line in lines].index("joining group")


def test_a_worker_that_can_not_register_its_results_joins_no_group(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "topic_formats", Formats(SchemaRefused("not compatible")))
    with pytest.raises(SchemaRefused, match="not compatible"):
        bench.run()
    assert bench.source.calls == []


def test_the_formats_end_if_the_rest_can_not_be_built(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    formats = Formats()
    monkeypatch.setattr(launch, "topic_formats", formats)
    monkeypatch.setattr(launch, "Pipeline", refusing(LookupError("odd")))
    with pytest.raises(LookupError):
        bench.run()
    assert formats.calls == ["made", "started", "closed"]


ROUTES = '[{name = "by-label", topic = "t.{label}"}, {path = "spam", exists = true, drop = true}]'


def routed(bench: Bench) -> None:
    flags = {"routes": ROUTES, "output.filtered_topic": "notes"}
    bench.settings = load(flags, environ={}).settings


def test_the_topics_of_labels_are_required_once_the_labels_are_known(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    routed(bench)
    asked: list[tuple[str, ...]] = []

    def require(settings: Settings) -> dict[str, TopicInfo]:
        asked.append(settings.topics.all)
        return {name: TopicInfo(1, 1) for name in settings.topics.all}

    monkeypatch.setattr(launch, "require", require)
    with capture_logs() as lines:
        bench.run(preflight=True)
    known = ("texts.in", "texts.labelled", "notes", "texts.dead")
    assert asked == [known, (*known[:2], "t.NEGATIVE", "t.POSITIVE", *known[2:])]
    start = next(line for line in lines if line["event"] == "starting")
    assert start["routes"] == ["by-label", "2"]
    assert (start["filtered"], start["digest"]) == ("notes", deciding_digest(bench.settings))


def test_topics_that_are_known_are_not_asked_for_again(bench: Bench) -> None:
    bench.run(preflight=True)
    assert bench.source.calls[-1:] == ["close"]


def test_a_missing_topic_of_a_label_is_in_the_command_that_creates_the_topics() -> None:
    flags = {"routes": ROUTES, "output.filtered_topic": "notes"}
    named = with_label_topics(load(flags, environ={}).settings, {None: CARD})
    command = topics_of_a_worker._how_to_create(named, ["t.NEGATIVE"])
    assert "--output-filtered-topic notes" in command
    assert (
        '--routes \'[{topic = "t.NEGATIVE", also = true}, '
        '{topic = "t.POSITIVE", also = true}]\'' in command
    )
