"""Facts that the page shows beside the metrics: posts, dead letters, models, a pool's processes.

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
_MODELS: Final = 20


@dataclass(frozen=True, slots=True)
class Notes:
    """The notes of one worker, or of a pool; each list newest first.

    Attributes:
        posts: a sample of the last posts; see `recent_posts`.
        dead_letters: the last ones; see `recent_dead_letters`.
        models: those that labelled since the start: name, revision, weights_sha256, since (ms), and
            first_offsets, by "topic/partition".
        workers: of a pool, each slot's number, pid (None between two processes), live, ready and
            reason; empty for one worker.
    """

    posts: Sequence[Json] = ()
    dead_letters: Sequence[Json] = ()
    models: Sequence[Json] = ()
    workers: Sequence[Json] = ()


class NotesSource(Protocol):
    """Provides the notes: of one worker, or of a pool."""

    def notes(self) -> Notes:
        """Return the newest notes."""
        ...


def merged(parts: Iterable[Notes], workers: Sequence[Json]) -> Notes:
    """Return the notes of a pool: the newest of all of its processes, and the state of each."""
    parts = list(parts)
    return Notes(
        _newest((post for part in parts for post in part.posts), POSTS),
        _newest((letter for part in parts for letter in part.dead_letters), DEAD_LETTERS),
        _models(model for part in parts for model in part.models),
        workers,
    )


def _models(models: Iterable[Json]) -> list[Json]:
    """Return each model once, with its first moment and its first offset of each partition."""
    found: dict[tuple[str, ...], Json] = {}
    for model in models:
        key = tuple(model[name] for name in ("name", "revision", "weights_sha256"))
        known = found.setdefault(key, model | {"first_offsets": {}})
        known["since"] = min(known["since"], model["since"])
        offsets = known["first_offsets"]
        for place, offset in model["first_offsets"].items():
            offsets[place] = min(offsets.get(place, offset), offset)
    return sorted(found.values(), key=lambda model: -model["since"])[:_MODELS]


def _newest(entries: Iterable[Json], most: int) -> list[Json]:
    return sorted(entries, key=lambda entry: -entry["at"])[:most]
