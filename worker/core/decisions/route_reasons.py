"""Tells in words why a route matches a record or does not, condition by condition.

Owns: the words of each condition, as `streamlabel routes` shows them.
Thread: any; pure functions.
Must not import: kafka_io, inference.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

from worker.core.decisions.conditions import LONGEST_MATCHED, FieldTest
from worker.core.decisions.routes import Facts
from worker.core.decisions.rules import Verdict
from worker.core.formats.walk import member
from worker.core.visible import excerpt
from worker.errors import RecordRejected
from worker.settings import FieldCondition, RouteSettings

_SHOWN: Final = 40  # characters of a field's value


class Reason(NamedTuple):
    """One condition of a route: whether it holds for a record, and the facts in words."""

    holds: bool
    words: str


def reasons(route: RouteSettings, facts: Facts) -> list[Reason]:
    """Return every condition of a route with its facts; none for a route without conditions."""
    found: list[Reason] = []
    if route.looks_at_a_model:
        verdict = facts.verdict(route.model)
        if verdict is None:
            return [Reason(False, f"model {route.model or ''} gave no label".replace("  ", " "))]
        found += _of_verdict(route, verdict, f"{route.model}: " if route.model else "")
    if route.path is not None:
        found.append(_of_field(route, route.path, facts.payload))
    return found


def _of_verdict(route: RouteSettings, verdict: Verdict, model: str) -> Iterator[Reason]:
    if route.label:
        holds = verdict.label in route.label
        rest = "" if holds else f", not {_listed(route.label)}"
        yield Reason(holds, f"{model}label is {verdict.label}{rest}")
    if route.decided:
        common = [label for label in route.decided if label in verdict.decided]
        given = _listed(common) if common else f"none of {_listed(route.decided)}"
        yield Reason(bool(common), f"{model}decided is {given}")
    bounds = {
        "score": (verdict.score, route.min_score, route.max_score),
        "margin": (verdict.margin, route.min_margin, route.max_margin),
    }
    for name, (value, least, bound) in bounds.items():
        if least is not None:
            words = "at least" if value >= least else "below"
            yield Reason(value >= least, f"{model}{name} {value:.3g} is {words} {least:g}")
        if bound is not None:
            words = "below" if value < bound else "not below"
            yield Reason(value < bound, f"{model}{name} {value:.3g} is {words} {bound:g}")


def _of_field(route: FieldCondition, path: str, payload: Mapping[str, Any] | None) -> Reason:
    holds = FieldTest(route).holds(payload)
    try:
        value = member(payload, tuple(path.split(".")))
    except RecordRejected:
        return Reason(holds, f"the record has no field {path}")
    if route.matches and isinstance(value, str) and len(value) > LONGEST_MATCHED:
        return Reason(
            holds, f"{path} has {len(value):,} characters, and matches reads {LONGEST_MATCHED:,}"
        )
    return Reason(holds, f"{path} is {excerpt(repr(value), _SHOWN)}")


def conditions(route: RouteSettings) -> list[str]:
    """Return the conditions of a route as the settings have them."""
    model = f"{route.model}: " if route.model else ""
    found = [f"{model}label {_listed(route.label)}"] if route.label else []
    found += [f"{model}decided {_listed(route.decided)}"] if route.decided else []
    for name in ("score", "margin"):
        least, bound = getattr(route, f"min_{name}"), getattr(route, f"max_{name}")
        found += [f"{model}{name} at least {least:g}"] if least is not None else []
        found += [f"{model}{name} below {bound:g}"] if bound is not None else []
    return [*found, *_of_path(route)]


def _of_path(route: FieldCondition) -> Iterator[str]:
    if route.in_:
        yield f"{route.path} is {_listed(route.in_)}"
    if route.not_in:
        yield f"{route.path} is not {_listed(route.not_in)}"
    if route.matches:
        yield f"{route.path} matches {route.matches}"
    if route.exists is not None:
        yield f"{route.path} {'exists' if route.exists else 'is missing'}"


def _listed(values: Iterable[object]) -> str:
    return " or ".join(map(str, values))
