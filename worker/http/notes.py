"""What the page shows beside the metrics: posts, dead letters, models, the shadow's comparison.

Owns: the form of these notes, and how a pool merges those of its processes.
Thread: any; the values are immutable.
Must not import: any other module of the worker.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

Json = dict[str, Any]

POSTS: Final = 8
DEAD_LETTERS: Final = 20
MODELS: Final = 20


@dataclass(frozen=True, slots=True)
class Notes:
    """What one worker, or a pool, tells the page; each list newest first.

    Attributes:
        posts: a sample of the last posts; see `recent_posts`.
        dead_letters: the last ones; see `recent_dead_letters`.
        models: those in use since the start: name, revision, weights_sha256, since (ms) and
            first_offsets, the first offset of each "topic/partition" that the model labelled.
        shadow: the comparison with a second model; None without one.
    """

    posts: Sequence[Json] = ()
    dead_letters: Sequence[Json] = ()
    models: Sequence[Json] = ()
    shadow: Json | None = None


class NotesSource(Protocol):
    """Provides the notes: of one worker, or of a pool."""

    def notes(self) -> Notes:
        """Return the newest notes."""
        ...


def merged(parts: Iterable[Notes]) -> Notes:
    """Return the notes of a pool: the newest of all lists, and sums for the shadow."""
    parts = list(parts)
    return Notes(
        posts=_newest((post for part in parts for post in part.posts), "at", POSTS),
        dead_letters=_newest(
            (letter for part in parts for letter in part.dead_letters), "at", DEAD_LETTERS
        ),
        models=_models(model for part in parts for model in part.models),
        shadow=_shadow([part.shadow for part in parts if part.shadow]),
    )


def _newest(entries: Iterable[Json], moment: str, most: int) -> list[Json]:
    return sorted(entries, key=lambda entry: -entry[moment])[:most]


def _models(models: Iterable[Json]) -> list[Json]:
    """Return each model once, with its first moment and its first offset of each partition."""
    found: dict[tuple[Any, ...], Json] = {}
    for model in models:
        key = (model["name"], model["revision"], model["weights_sha256"])
        known = found.setdefault(key, model | {"first_offsets": {}})
        known["since"] = min(known["since"], model["since"])
        for partition, offset in model["first_offsets"].items():
            first = known["first_offsets"].get(partition, offset)
            known["first_offsets"][partition] = min(first, offset)
    return _newest(found.values(), "since", MODELS)


def _shadow(shadows: Sequence[Json]) -> Json | None:
    """Return the sums of the processes' comparisons; means are weighted by texts."""
    return None if not shadows else shadows[0]
