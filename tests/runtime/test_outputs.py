"""OutputTopics: limits and partitions of the outputs, at start and for topics that are found."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

import pytest
from structlog.testing import capture_logs

from worker.core.topics import TopicInfo
from worker.errors import BrokerAway, TopicMissing
from worker.runtime import outputs
from worker.runtime import topics as runtime_topics
from worker.runtime.outputs import OutputTopics
from worker.runtime.topics import new_sizes, require
from worker.settings import Settings, load


def info(partitions: int, most: int = 1_000) -> TopicInfo:
    return TopicInfo(partitions, 1, max_message_bytes=most)


class Cluster:
    """Topics that exist, and what was asked about them."""

    def __init__(self, patch: pytest.MonkeyPatch, **infos: TopicInfo) -> None:
        self.infos = {name.replace("_", "-"): one for name, one in infos.items()}
        self.asked: list[list[str]] = []
        patch.setattr(outputs, "require", self.require)

    def require(self, settings: Settings, found: Iterable[str]) -> dict[str, TopicInfo]:
        self.asked.append(list(found))
        names = settings.topics.among(self.asked[-1]).all
        if missing := [name for name in names if name not in self.infos]:
            raise TopicMissing(", ".join(missing))
        return {name: self.infos[name] for name in names}


SETTINGS = load(
    {
        "input.topic_pattern": "in-.",
        "output.topic": "{topic}-out",
        "output.dead_letter_topic": "dead",
    },
    environ={},
).settings


def test_outputs_of_topics_that_are_found_are_added_and_of_deleted_ones_removed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A record of a deleted topic may still be encoded, so its output's limits stay."""
    cluster = Cluster(
        monkeypatch,
        in_a=info(2),
        in_a_out=info(2),
        in_b=info(9),
        in_b_out=info(3, most=5_000),
        dead=info(9),
    )
    registered: list[str] = []
    infos = cluster.require(SETTINGS, ["in-a"])
    topics = OutputTopics(SETTINGS, infos, registered.append)
    topics.limits["dead"].max_bytes = 77  # as a refusal has shown
    assert topics.partitions == {"in-a-out": 2, "dead": 9}
    with capture_logs() as lines:
        topics.prepare(["in-a", "in-b"])
    assert topics.partitions == {"in-a-out": 2, "in-b-out": 3, "dead": 9}
    assert (topics.limits["in-b-out"].max_bytes, topics.largest_batch) == (5_000, 5_000)
    assert topics.limits["dead"].max_bytes == 77
    assert registered == ["in-a-out", "in-b-out"]
    assert "'in-b-out' has fewer partitions (3) than the input (9)" in lines[0]["event"]
    topics.prepare(["in-b"])
    assert topics.partitions == {"in-b-out": 3, "dead": 9}
    assert "in-a-out" in topics.limits
    assert cluster.asked == [["in-a"], ["in-b"]]
    cluster.infos["in-a-out"] = info(4, most=8_000)
    topics.prepare(["in-a", "in-b"])
    assert (topics.partitions["in-a-out"], topics.limits["in-a-out"].max_bytes) == (4, 8_000)


def test_a_topic_whose_output_is_missing_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch, in_a=info(1), dead=info(1))
    topics = OutputTopics(SETTINGS, {"dead": info(1)})
    with pytest.raises(TopicMissing, match="in-a-out"):
        topics.prepare(["in-a"])
    cluster.infos["in-a-out"] = info(1)
    topics.prepare(["in-a"])
    assert topics.partitions == {"in-a-out": 1, "dead": 1}


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("out", {"a": 2, "b": 6, "out": 6, "dead": 6}),
        ("{topic}.x", {"a": 2, "b": 6, "a.x": 2, "b.x": 6, "dead": 6}),
    ],
)
def test_a_new_output_gets_the_partitions_of_its_largest_input(
    output: str, expected: dict[str, int]
) -> None:
    flags = {"input.topics": "a,b", "output.topic": output, "output.dead_letter_topic": "dead"}
    topics = load(flags, environ={}).settings.topics
    assert new_sizes(topics, {"a": info(2), "b": None}, 6) == expected


def test_outputs_without_an_input_get_the_default() -> None:
    flags = {"input.topic_pattern": "in-.*", "output.dead_letter_topic": "dead"}
    topics = load(flags, environ={}).settings.topics
    assert new_sizes(topics, {}, 6) == {"texts.labelled": 6, "dead": 6}


class BrokerTopics:
    """The admin client of a broker that knows some topics."""

    known: dict[str, TopicInfo | None]
    created: list[str]

    def __init__(self, _: object) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def topics(self, names: Iterable[str]) -> dict[str, TopicInfo | None]:
        return {name: self.known.get(name) for name in names}

    def create(self, name: str, partitions: int) -> None:
        self.created.append(name)
        self.known[name] = info(partitions)


@pytest.mark.parametrize("create_topics", [False, True])
def test_an_input_that_was_found_and_is_unknown_now_is_asked_for_again_and_never_created(
    monkeypatch: pytest.MonkeyPatch, create_topics: bool
) -> None:
    """It was deleted just now, or another broker knows it."""
    settings = SETTINGS.model_copy(update={"create_topics": create_topics})
    monkeypatch.setattr(runtime_topics, "Admin", BrokerTopics)
    BrokerTopics.known, BrokerTopics.created = {"in-a-out": info(1), "dead": info(1)}, []
    with pytest.raises(BrokerAway, match="the broker does not know in-a"):
        require(settings, ["in-a"])
    assert BrokerTopics.created == []
    BrokerTopics.known["in-a"] = info(3)
    del BrokerTopics.known["in-a-out"]
    if create_topics:
        assert require(settings, ["in-a"])["in-a-out"] == info(3), "an output is created"
    else:
        with pytest.raises(TopicMissing, match="in-a-out"):
            require(settings, ["in-a"])


def test_the_topics_of_a_changed_model_are_added_and_those_of_before_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A record that the model before labelled may be in flight."""
    cluster = Cluster(
        monkeypatch, texts_in=info(2), out=info(2), dead=info(2), a=info(2), b=info(3)
    )
    names = {"input.topic": "texts-in", "output.topic": "out", "output.dead_letter_topic": "dead"}

    def routed(topic: str) -> Settings:
        return load(names | {"routes": f'[{{topic = "{topic}"}}]'}, environ={}).settings

    registered: list[str] = []
    topics = OutputTopics(routed("a"), cluster.require(routed("a"), []), registered.append)
    topics.use(routed("a"))
    assert len(cluster.asked) == 1, "nothing changed"
    with capture_logs() as lines:
        topics.use(routed("b"))
    assert topics.partitions == {"out": 2, "a": 2, "b": 3, "dead": 2}
    assert registered == ["out", "a", "b"]
    assert isinstance(lines, list)
    with pytest.raises(TopicMissing, match="c"):
        topics.use(routed("c"))
    assert "c" not in topics.partitions
