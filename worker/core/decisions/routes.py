"""Decides where a labelled record goes: its topic, the topics of its copies, or nowhere.

Routes are tried in the order of the settings. A route with `also` that matches adds a copy, and the
next one is tried. The first other route that matches decides the topic, or drops the record. If
none does, the result goes to `output.topic`.

Owns: the meaning of a route's conditions, and the order of routes.
Thread: publish; pure.
Must not import: kafka_io, inference.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from worker.core.absences import Part
from worker.core.decisions.conditions import FieldTest
from worker.core.decisions.rules import Verdict, verdict
from worker.core.records import Classified
from worker.core.route_headers import CopyNote
from worker.core.route_topics import named_topic
from worker.settings import RouteSettings, output_of
from worker.settings.routes import LABEL_NAME, route_names


class Routed(NamedTuple):
    """The way of one record.

    Attributes:
        topic: of the result; None for `output.topic`.
        copies: the copies beside it, each in a topic of its own.
        route: name of the route that chose the topic, or that dropped the record; empty for none.
        dropped: whether the record gets no result.
    """

    topic: str | None = None
    copies: tuple[CopyNote, ...] = ()
    route: str = ""
    dropped: bool = False


class Facts:
    """The facts of one record that routes ask for.

    Args:
        input_topic: that the record is of.
        payload: the record's object; None if it has none.
        verdict_of: returns the verdict of a model by its name, None standing for the only model;
            None if that model has none.
    """

    def __init__(
        self,
        input_topic: str,
        payload: Mapping[str, Any] | None,
        verdict_of: Callable[[str | None], Verdict | None],
    ) -> None:
        self.input_topic, self.payload = input_topic, payload
        self._verdict_of = verdict_of
        self._verdicts: dict[str | None, Verdict | None] = {}

    def verdict(self, model: str | None) -> Verdict | None:
        """Return the verdict of a model, which is asked once."""
        if model not in self._verdicts:
            self._verdicts[model] = self._verdict_of(model)
        return self._verdicts[model]


def facts_of(outcome: Classified) -> Facts:
    """Return the facts of a labelled record."""

    def verdict_of(model: str | None) -> Verdict | None:
        if outcome.parts is None:
            return verdict(outcome.model, outcome.prediction.probabilities)
        part = outcome.parts[model] if model else next(iter(outcome.parts.values()))
        if isinstance(part, Part):
            return verdict(part.card, part.prediction.probabilities)
        return None

    item = outcome.item
    return Facts(item.record.source.topic, item.payload, verdict_of)


class Route:
    """One route.

    Args:
        name: of the route.
        settings: of the route.
        missing: called with the path where a record lacks the field of the condition.
    """

    def __init__(self, name: str, settings: RouteSettings, missing: Callable[[str], None]) -> None:
        self.name, self.settings = name, settings
        self._labels, self._decided = frozenset(settings.label), frozenset(settings.decided)
        self._field = FieldTest(settings, missing)
        self._by_label = LABEL_NAME in (settings.topic or "")
        self._asks_a_model = settings.looks_at_a_model

    def matches(self, facts: Facts) -> bool:
        """Return whether the record meets every condition."""
        if self._asks_a_model:
            found = facts.verdict(self.settings.model)
            if found is None or not self._accepts(found):
                return False
        return self._field.holds(facts.payload)

    def _accepts(self, found: Verdict) -> bool:
        s = self.settings
        return (
            (not self._labels or found.label in self._labels)
            and (not self._decided or not self._decided.isdisjoint(found.decided))
            and _within(found.score, s.min_score, s.max_score)
            and _within(found.margin, s.min_margin, s.max_margin)
        )

    def topic(self, facts: Facts) -> str:
        """Return the topic that the route sends a record to."""
        topic = self.settings.topic or ""
        if self._by_label and (found := facts.verdict(self.settings.model)):
            topic = named_topic(topic, found.label)
        return output_of(topic, facts.input_topic)


def _within(value: float, least: float | None, bound: float | None) -> bool:
    return (least is None or value >= least) and (bound is None or value < bound)


class Router:
    """The routes of a worker.

    Args:
        routes: in order.
        output: `output.topic`.
        missing: called with the path where a record lacks the field of a condition.
    """

    def __init__(
        self,
        routes: tuple[RouteSettings, ...],
        output: str,
        missing: Callable[[str], None] = lambda _: None,
    ) -> None:
        named = zip(route_names(routes), routes, strict=True)
        self._routes = [Route(name, route, missing) for name, route in named]
        self._output = output

    def route(self, facts: Facts) -> Routed:
        """Return the way of a record: the first route that matches decides."""
        copies: dict[str, CopyNote] = {}  # by topic: a topic gets one copy
        decided = Routed()
        for route in self._routes:
            if not route.matches(facts):
                continue
            if not route.settings.also:
                topic = None if route.settings.drop else route.topic(facts)
                decided = Routed(topic, (), route.name, route.settings.drop)
                break
            copies.setdefault(route.topic(facts), CopyNote(route.name, route.topic(facts)))
        if not decided.dropped:  # the result itself is there
            copies.pop(decided.topic or output_of(self._output, facts.input_topic), None)
        return decided._replace(copies=tuple(copies.values()))
