"""The options of a route: conditions on a record's label and fields, and where it goes.

Owns: `RouteSettings` and `Routes`, the tables `[[routes]]`.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final, Self

from pydantic import ConfigDict, Field, model_validator

from worker.settings.conditions import FieldCondition, Labels
from worker.settings.sections import PATTERNS
from worker.settings.toml_values import TOML

LABEL_NAME: Final = "{label}"  # in a route's topic, stands for the label
_NAME: Final = r"^[A-Za-z0-9._-]{1,60}$"
_TOPIC: Final = r"^([A-Za-z0-9._-]|\{topic\}|\{label\}){1,249}$"
PATTERNS |= {
    _NAME: "1 to 60 letters, digits, dots, underscores or hyphens",
    _TOPIC: "letters, digits, dots, underscores or hyphens, with {topic} and {label} in them",
}


class RouteSettings(FieldCondition):
    """A topic for the records that meet every condition given; the first match wins."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [
                {"required": ["topic"]},
                {"required": ["drop"], "properties": {"drop": {"const": True}}},
            ]
        }
    )

    name: str | None = Field(
        None,
        pattern=_NAME,
        description="Name of the route in headers, metrics and messages. Default: its number, "
        "from 1.",
    )
    label: Labels = Field((), description="Labels, one of which the record must have.")
    min_score: float | None = Field(None, ge=0, le=1, description="Least score of the label.")
    max_score: float | None = Field(
        None, ge=0, le=1, description="Bound of the score of the label, which is below it."
    )
    min_margin: float | None = Field(
        None, ge=0, le=1, description="Least difference between the two highest probabilities."
    )
    max_margin: float | None = Field(
        None, ge=0, le=1, description="Bound of that difference, which is below it."
    )
    decided: Labels = Field(
        (), description="Labels, one of which is above its threshold (`decision.threshold`)."
    )
    model: str | None = Field(
        None,
        description="Name of the model whose label, score, margin and decided labels are meant. "
        "It may be left out if there is only one model.",
    )
    topic: str | None = Field(
        None,
        pattern=_TOPIC,
        description="Topic for the result instead of `output.topic`. `{label}` stands for the "
        "record's label, `{topic}` for the name of the input.",
    )
    also: bool = Field(
        False,
        description="Publish a copy to the topic, and go on to the next route: the result itself "
        "still goes to a topic of its own.",
    )
    drop: bool = Field(
        False,
        description="Publish no result, but a note without text to `output.filtered_topic`.",
    )

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if problem := next(self._problems(), None):
            raise ValueError(problem)
        return self

    def _problems(self) -> Iterator[str]:
        if (self.topic is None) != self.drop:
            yield "needs either topic or drop = true"
        if self.also and self.drop:
            yield "also = true publishes a copy, drop = true publishes nothing: keep one of them"
        for what in ("score", "margin"):
            least, bound = getattr(self, f"min_{what}"), getattr(self, f"max_{what}")
            if bound is not None and bound <= (least or 0):
                yield f"max_{what} ({bound:g}) leaves no {what}: it must be above {least or 0:g}"

    @property
    def _has_model_condition(self) -> bool:
        bounds = (self.min_score, self.max_score, self.min_margin, self.max_margin)
        return bool(self.label or self.decided) or any(bound is not None for bound in bounds)

    @property
    def looks_at_a_model(self) -> bool:
        """True if a condition or the topic needs the label of a model."""
        return self._has_model_condition or LABEL_NAME in (self.topic or "")

    @property
    def has_condition(self) -> bool:
        """True if some record may not match."""
        return self._has_model_condition or self.path is not None or self.model is not None


Routes = Annotated[tuple[RouteSettings, ...], TOML]


def route_names(routes: tuple[RouteSettings, ...]) -> tuple[str, ...]:
    """Return the name of each route: its own, or its number."""
    return tuple(route.name or str(number) for number, route in enumerate(routes, start=1))


def known_topics(routes: tuple[RouteSettings, ...]) -> tuple[tuple[str, str], ...]:
    """Return the names of routes and their topics, without those that depend on a label."""
    named = zip(route_names(routes), routes, strict=True)
    topics = ((name, route.topic) for name, route in named)
    return tuple((name, topic) for name, topic in topics if topic and LABEL_NAME not in topic)
