"""The topics of routes whose names hold a label: which there are, and how a label is spelt in one.

Owns: the names of these topics, and the checks of routes against the labels of models.
Thread: any; pure.
Must not import: kafka_io, inference.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

from worker.core.decisions.rules import result_labels
from worker.core.model import Classifier
from worker.core.model_set import ModelSet
from worker.core.records import ModelCard
from worker.errors import SettingsError
from worker.settings import RouteSettings, Settings
from worker.settings.contradictions import shadow_topic_conflicts
from worker.settings.routes import LABEL_NAME, route_names

MOST_TOPICS: Final = 200  # of one route
_SHOWN: Final = 10  # labels in a message
_ILLEGAL: Final = re.compile(r"[^A-Za-z0-9._-]")

Cards = Mapping[str | None, ModelCard]  # by the name of a model; the only one has None


def cards_of(classifier: Classifier) -> Cards:
    """Return the models that a classifier stands for."""
    if isinstance(classifier, ModelSet):
        return {member.name: member.card for member in classifier.members}
    return {None: classifier.card}


@lru_cache(maxsize=10_000)
def topic_part(label: str) -> str:
    """Return a label as a topic's name has it: each character that Kafka refuses becomes `_`."""
    return _ILLEGAL.sub("_", label) or "_"


def named_topic(template: str, label: str) -> str:
    """Return the topic of a route for a label; `{topic}` may be left in it."""
    return template.replace(LABEL_NAME, topic_part(label)) if LABEL_NAME in template else template


def with_label_topics(settings: Settings, cards: Cards) -> Settings:
    """Return settings in which each route with `{label}` is one route for each label.

    They name every topic that the worker may write to.

    Args:
        settings: of the worker.
        cards: of its models.

    Raises:
        SettingsError: a route does not fit the labels of its model.
    """
    routes: list[RouteSettings] = []
    for name, route in zip(route_names(settings.routes), settings.routes, strict=True):
        card = _card(name, route, cards)
        for problem in _misfits(name, route, card):
            raise SettingsError(problem)
        labels = _possible(route, card) if LABEL_NAME in (route.topic or "") else (None,)
        for label in labels:
            own = {"name": name} if label is None else _for_label(name, route, label)
            routes.append(route.model_copy(update=own))
    changed = settings.model_copy(update={"routes": tuple(routes)})
    for problem in (*changed.topics.conflicts(), *shadow_topic_conflicts(changed)):
        raise SettingsError(problem)
    return changed


def _card(name: str, route: RouteSettings, cards: Cards) -> ModelCard:
    """Return the model that a route looks at; one that looks at none gets the first."""
    known = ", ".join(name for name in cards if name is not None)
    if route.model is not None and route.model not in cards:
        models = f"the models are {known}" if known else "there is only [model]"
        raise SettingsError(f"route {name!r} names the model {route.model!r}, and {models}")
    if route.model is None and route.looks_at_a_model and len(cards) > 1:
        raise SettingsError(
            f"route {name!r} must name the model that it looks at: model is one of {known}"
        )
    return cards[route.model] if route.model in cards else next(iter(cards.values()))


def _for_label(name: str, route: RouteSettings, label: str) -> dict[str, object]:
    topic = named_topic(route.topic or "", label)
    return {"name": name, "label": (label,), "topic": topic}


def _possible(route: RouteSettings, card: ModelCard) -> tuple[str, ...]:
    """Return the labels that a record of the route may have."""
    return route.label or tuple(result_labels(card))


def _misfits(name: str, route: RouteSettings, card: ModelCard) -> Iterator[str]:
    known = result_labels(card)
    for option, labels in (("label", route.label), ("decided", route.decided)):
        if missing := [label for label in labels if label not in known]:
            yield (
                f"route {name!r} has {option} = {_listed(missing)}, which is no label of "
                f"{card.name}: its labels are {_listed(known)}"
            )
    if route.decided and (card.decision is None or card.decision.thresholds is None):
        yield (
            f"route {name!r} has decided = {_listed(route.decided)}, and no label is decided "
            "without thresholds: set decision.threshold"
        )
    number = len(_possible(route, card)) if LABEL_NAME in (route.topic or "") else 0
    if number > MOST_TOPICS:
        yield (
            f"route {name!r} would need {number:,} topics, one for each label, and may have "
            f"{MOST_TOPICS}: name the labels that matter in its member label"
        )


def _listed(labels: Iterable[str]) -> str:
    shown = list(labels)
    more = f" and {len(shown) - _SHOWN:,} more" if len(shown) > _SHOWN else ""
    return ", ".join(map(repr, shown[:_SHOWN])) + more


def depends_on_labels(settings: Settings) -> bool:
    """Return whether the topic of a route holds a label."""
    return any(LABEL_NAME in (route.topic or "") for route in settings.routes)


def spelling_notes(settings: Settings, cards: Cards) -> Iterator[str]:
    """Yield a sentence for each label whose topic is not spelt as it is, or is another label's too.

    Args:
        settings: of the worker, with `{label}` in the routes.
        cards: of its models.
    """
    for name, route in zip(route_names(settings.routes), settings.routes, strict=True):
        if route.topic is None or LABEL_NAME not in route.topic:
            continue
        labels = defaultdict[str, list[str]](list)
        for label in _possible(route, _card(name, route, cards)):
            labels[named_topic(route.topic, label)].append(label)
        for topic, spelt in labels.items():
            if len(spelt) > 1:
                yield f"route {name!r} sends the labels {_listed(spelt)} to one topic, {topic!r}"
            elif topic_part(spelt[0]) != spelt[0]:
                yield (
                    f"route {name!r} sends the label {spelt[0]!r} to the topic {topic!r}: Kafka "
                    "allows letters, digits, dots, underscores and hyphens"
                )
