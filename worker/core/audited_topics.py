"""The topics that may hold outcomes of a worker, and the inputs whose outcomes they hold.

The name of a route's topic with `{label}` depends on the labels of the model, which an audit does
not load. It reads every topic whose name fits, and counts only the records that a route sent there.

Owns: the choice of these topics.
Thread: any; pure functions.
Must not import: anything but core and settings.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from worker.core.outcome_order import Outlet
from worker.core.replay_outcomes import Kind
from worker.settings import RouteSettings, WorkerTopics, output_of
from worker.settings.routes import LABEL_NAME

_ANY_LABEL: Final = r"[A-Za-z0-9._-]+"


@dataclass(frozen=True, slots=True)
class AuditedTopics:
    """The topics of outcomes.

    Attributes:
        feeds: outlet -> the inputs whose outcomes it may hold. Results are first, then copies,
            notes and dead letters. A topic of results may hold copies too.
        fitting: topics that are read only because they fit the name of a route with `{label}`.
    """

    feeds: Mapping[Outlet, frozenset[str]]
    fitting: frozenset[str] = frozenset()

    def topics(self, kind: Kind) -> list[str]:
        """Return the topics of this kind."""
        return [outlet.topic for outlet in self.feeds if outlet.kind == kind]

    def of(self, name: str) -> Iterator[Outlet]:
        """Yield each outlet that may hold outcomes of this input."""
        for outlet, inputs in self.feeds.items():
            if name in inputs:
                yield outlet
                if outlet.kind == "result":
                    yield Outlet("copy", outlet.topic)


def audited_topics(
    topics: WorkerTopics,
    routes: Iterable[RouteSettings] = (),
    filtered: str | None = None,
    existing: Collection[str] = (),
    more: Iterable[str] = (),
) -> AuditedTopics:
    """Return the topics of outcomes of a worker.

    Args:
        topics: of the worker, with the inputs that match now.
        routes: of the settings.
        filtered: topic of the notes of filtered records, if there is one.
        existing: names of the topics that the cluster has.
        more: other topics of results, as of earlier settings.
    """
    feeds = {Outlet("result", name): set(inputs) for name, inputs in topics.feeds}
    fitting: set[str] = set()
    apart = {*topics.inputs, topics.dead_letters, filtered}
    for route in sorted(routes, key=lambda route: route.also):
        for template, name in _templates(route, topics.inputs):
            fits = LABEL_NAME in template
            found = _fitting(template, existing) if fits else {template}
            fitting |= found if fits else set()
            for topic in sorted(found - apart):
                _add(feeds, topic, {name}, also=route.also)
    for topic in more:
        _add(feeds, topic, topics.inputs)
    everything = set(topics.inputs)
    notes = {Outlet("filtered", filtered): everything} if filtered else {}
    feeds |= notes | {Outlet("dead_letter", topics.dead_letters): everything}
    return AuditedTopics(
        {outlet: frozenset(inputs) for outlet, inputs in feeds.items()},
        frozenset(fitting).difference(apart, topics.results, more),
    )


def _templates(route: RouteSettings, inputs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the topic of a route for each input, in which `{label}` may be left."""
    if route.topic is not None:
        for name in inputs:
            yield output_of(route.topic, name), name


def _fitting(template: str, existing: Iterable[str]) -> set[str]:
    """Return the existing topics that a template with `{label}` may stand for."""
    pattern = _ANY_LABEL.join(map(re.escape, template.split(LABEL_NAME)))
    return {name for name in existing if re.fullmatch(pattern, name)}


def _add(
    feeds: dict[Outlet, set[str]], topic: str, inputs: Iterable[str], *, also: bool = False
) -> None:
    """Add a topic; one that has results already is read for copies too."""
    kind: Kind = "copy" if also and Outlet("result", topic) not in feeds else "result"
    feeds.setdefault(Outlet(kind, topic), set()).update(inputs)
