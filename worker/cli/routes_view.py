"""The output of `streamlabel routes`: the routes, and the way of each record with its reasons.

Owns: the counts of a test.
Thread: main.
Must not import: torch or transformers.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from worker.core.counted import counted
from worker.core.decisions.route_reasons import Reason, conditions, reasons
from worker.core.decisions.routes import Facts, Routed, Router, facts_of
from worker.core.decisions.rules import Verdict
from worker.core.records import DeadLettered, Filtered, Outcome, record_of
from worker.core.visible import excerpt, visible
from worker.settings import RouteSettings, Settings, output_of
from worker.settings.routes import route_names

_TEXT: Final = 60  # characters of a text


# -- list --------------------------------------------------------------------------------------


def print_routes(settings: Settings, *, as_json: bool) -> None:
    """Print each route in order, then where all other results go."""
    for name, route in zip(route_names(settings.routes), settings.routes, strict=True):
        tests = conditions(route)
        if as_json:
            print(json.dumps(_listed(name, route, tests), ensure_ascii=False))
        else:
            print(visible(f"{name}: {' and '.join(tests) or 'every record'} -> {_action(route)}"))
    if not as_json:
        print(f"{'others' if settings.routes else 'every result'} -> {settings.output.topic}")


def _listed(name: str, route: RouteSettings, tests: list[str]) -> dict[str, Any]:
    return {
        "route": name,
        "conditions": tests,
        "topic": route.topic,
        "also": route.also,
        "drop": route.drop,
    }


def _action(route: RouteSettings) -> str:
    if route.drop:
        return "no result, a note"
    return f"{route.topic}{' (a copy)' if route.also else ''}"


# -- test --------------------------------------------------------------------------------------


class Tried(NamedTuple):
    """A route that was tried on a record: whether it matched, and the facts that decided."""

    route: str
    matches: bool
    conditions: list[Reason]


@dataclass(frozen=True, slots=True)
class Way:
    """The way of one record.

    Attributes:
        line: its line in the file.
        topic: where its result, its note or its dead letter goes; None if nothing is published.
        verdicts: of its label, by the name of the model; a model that did not apply has None.
        routed: by the routes.
        tried: the routes that were tried, in order.
        why: the reason of a dead letter, or of a filtered record.
        failed: whether it is a dead letter.
    """

    line: int
    text: str
    topic: str | None
    verdicts: Mapping[str | None, Verdict | None] = field(default_factory=dict)
    routed: Routed = field(default_factory=Routed)
    tried: tuple[Tried, ...] = ()
    why: str | None = None
    failed: bool = False

    @property
    def filtered(self) -> bool:
        """True if the record would get a note instead of a result."""
        return self.routed.dropped or (self.why is not None and not self.failed)


class Ways:
    """Finds the way of each outcome.

    Args:
        settings: with the routes.
    """

    def __init__(self, settings: Settings) -> None:
        self._output = settings.output
        self._router = Router(settings.routes, settings.output.topic)
        self._routes = tuple(zip(route_names(settings.routes), settings.routes, strict=True))

    def of(self, outcome: Outcome) -> Way:
        """Return the way of an outcome."""
        line = record_of(outcome).ref.offset
        if isinstance(outcome, DeadLettered):
            text = (outcome.record.value or b"").decode(errors="replace")
            why = f"{outcome.reason.value}: {outcome.message}"
            return Way(line, text, self._output.dead_letter_topic, why=why, failed=True)
        text = outcome.item.text
        if isinstance(outcome, Filtered):
            return Way(line, text, self._output.filtered_topic, why=outcome.words)
        facts = facts_of(outcome)
        routed = self._router.route(facts)
        topic = routed.topic or output_of(self._output.topic, facts.input_topic)
        if routed.dropped:
            topic = self._output.filtered_topic or ""
        models: Iterable[str | None] = [None] if outcome.parts is None else outcome.parts
        verdicts = {model: facts.verdict(model) for model in models}
        return Way(line, text, topic or None, verdicts, routed, tuple(self._tried(facts)))

    def _tried(self, facts: Facts) -> Iterator[Tried]:
        for name, route in self._routes:
            found = reasons(route, facts)
            matches = all(reason.holds for reason in found)
            yield Tried(name, matches, found)
            if matches and not route.also:
                return


def as_document(way: Way) -> dict[str, Any]:
    """Return a way as one JSON object."""
    return {
        "line": way.line,
        "text": way.text,
        "labels": [
            {"model": name} | {"label": one.label, "score": one.score}
            for name, one in way.verdicts.items()
            if one is not None
        ],
        "topic": way.topic,
        "route": way.routed.route or None,
        "filtered": way.filtered,
        "copies": dict(way.routed.copies),
        "reason": way.why,
        "tried": [
            tried._asdict() | {"conditions": [one._asdict() for one in tried.conditions]}
            for tried in way.tried
        ],
    }


def as_lines(way: Way) -> Iterator[str]:
    """Yield the lines about a way, for people."""
    note = f"route {way.routed.route}" if way.routed.route else ""
    note = "dead letter" if way.failed else note
    note = ", ".join(filter(None, (note, "filtered" if way.filtered else "")))
    labels = ", ".join(_label(name, one) for name, one in way.verdicts.items())
    yield f"{way.topic or 'nowhere'}{f' ({note})' if note else ''}"
    yield f"    {labels}{'  ' if labels else ''}{excerpt(way.text, _TEXT)}"
    if way.why:
        yield f"    {way.why}"
    for copy in way.routed.copies:
        yield f"    copy to {copy.topic} by route {copy.route}"
    for route, matches, found in way.tried:
        words = [one.words for one in found if one.holds is matches]
        verb = "matches" if matches else "does not match"
        yield f"    route {route} {verb}: {'; '.join(words) or 'it has no condition'}"


def _label(model: str | None, verdict: Verdict | None) -> str:
    label = "no label" if verdict is None else f"{verdict.label} {verdict.score:.4f}"
    return f"{model}: {label}" if model else label


class WaysView:
    """Prints ways as they are found, and their number by topic at the end."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._topics: Counter[str] = Counter()
        self._copies: Counter[str] = Counter()

    def show(self, way: Way) -> None:
        """Print one."""
        self._topics[way.topic or "nowhere"] += 1
        self._copies.update(copy.topic for copy in way.routed.copies)
        if self._as_json:
            print(json.dumps(as_document(way), ensure_ascii=False), flush=True)
        else:
            print("\n".join(map(visible, as_lines(way))), flush=True)

    def end(self) -> None:
        """Print the number of records by topic, for people."""
        if self._as_json:
            return
        print(f"{counted(self._topics.total(), 'record')}:")
        for name, number in self._topics.most_common():
            print(f"{number:>8,} to {name}")
        for name, number in self._copies.most_common():
            print(f"{number:>8,} copied to {name}")
