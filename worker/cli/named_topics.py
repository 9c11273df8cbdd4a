"""Settings that name every topic of a worker, those that depend on the labels of its models too.

Owns: nothing.
Thread: main.
Must not import: torch, transformers or kafka, before it needs the labels.
"""

from __future__ import annotations

from functools import lru_cache

from worker.core.route_topics import depends_on_labels, with_label_topics
from worker.settings import Settings


@lru_cache(maxsize=1)
def with_every_topic(settings: Settings) -> Settings:
    """Return settings in which no topic of a route holds `{label}` any more.

    Reads the models without their weights, if there is such a route.

    Raises:
        StreamlabelError: a model can't be read, or a route does not fit its labels.
    """
    if not depends_on_labels(settings):
        return settings
    from worker.inference.label_cards import label_cards

    return with_label_topics(settings, label_cards(settings))
