"""Routes that make no sense together, or with the other settings.

Owns: these checks, one sentence for each problem.
Thread: main, while the settings are loaded.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

from worker.settings.routes import LABEL_NAME, RouteSettings, route_names

if TYPE_CHECKING:
    from worker.settings.declaration import Settings


def route_conflicts(s: Settings) -> Iterator[str]:
    """Yield a sentence for each route that conflicts with another setting."""
    names = route_names(s.routes)
    for name in (name for name, number in Counter(names).items() if number > 1):
        yield f"two routes have the name {name!r}: give each its own"
    for name, route in zip(names, s.routes, strict=True):
        if route.drop and not s.output.filtered_topic:
            yield (
                f"route {name!r} drops records, which needs output.filtered_topic: a topic for a "
                "note of each, so that none vanishes unseen"
            )
        if route.path is not None and s.input.format == "text":
            yield (
                f"route {name!r} has a condition on the field {route.path!r}, and with "
                'input.format = "text" a record has no fields'
            )
        yield from _model(s, name, route)


def _model(s: Settings, name: str, route: RouteSettings) -> Iterator[str]:
    known = ", ".join(s.models)
    if route.model is not None and not s.models:
        yield f"route {name!r} names the model {route.model!r}, and there is only [model]"
    elif route.model is not None and route.model not in s.models:
        yield f"route {name!r} names the model {route.model!r}, and the models are {known}"
    elif route.model is None and len(s.models) > 1 and route.looks_at_a_model:
        yield f"route {name!r} must name the model that it looks at: model is one of {known}"
    elif route.model is not None and not route.looks_at_a_model:
        yield (
            f"route {name!r} names a model, and has no condition on it: add label, min_score or "
            "the like, or remove model"
        )


def route_doubts(s: Settings) -> Iterator[str]:
    """Yield a sentence for each route that no record reaches, or that never makes a copy."""
    names, catch_all = route_names(s.routes), None
    for number, (name, route) in enumerate(zip(names, s.routes, strict=True)):
        if route.also and set(_topics_of_results(s, s.routes[number:])) == {route.topic}:
            yield (
                f"route {name!r} makes no copy: the result itself goes to {route.topic!r}; remove "
                "the route, or give it another topic"
            )
        if catch_all is not None:
            yield (
                f"no record reaches route {name!r}: route {catch_all!r} before it has no condition "
                "and takes them all"
            )
        elif not route.also and not route.has_condition:
            catch_all = name


def _topics_of_results(
    s: Settings, routes: tuple[RouteSettings, ...]
) -> Iterator[str | tuple[str, str | None] | None]:
    """Yield where a result may go that has come as far as these routes; None for a drop."""
    for route in routes:
        if not route.also:
            by_label = LABEL_NAME in (route.topic or "")
            yield (route.topic or "", route.model) if by_label else route.topic
            if not route.has_condition:
                return
    yield s.output.topic
