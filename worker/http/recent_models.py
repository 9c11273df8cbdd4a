"""Keeps the models that this worker used, with the first offset of each partition under each.

Owns: the list, one tuple that is replaced whole.
Thread: `note` on main, before the first poll, and on publish afterwards; any thread may read.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from worker.clock import Clock
from worker.core.records import ModelCard, Partition
from worker.http.notes import MODELS

Json = dict[str, Any]


class RecentModels:
    """The models since the start, newest first; each begins when it is first noted."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._models: tuple[Json, ...] = ()

    def latest(self) -> Sequence[Json]:
        """Return name, revision, weights, first moment and first offsets of each model."""
        return self._models

    def note(self, card: ModelCard, first_offsets: Mapping[Partition, int]) -> None:
        """Add a model, or first offsets of the model in use."""
        named = {f"{topic}/{number}": offset for (topic, number), offset in first_offsets.items()}
        identity = {
            "name": card.name,
            "revision": card.revision,
            "weights_sha256": card.weights_sha256,
        }
        newest, *older = self._models or ({},)
        if identity.items() <= newest.items():
            known = newest | {"first_offsets": named | newest["first_offsets"]}
            self._models = (known, *older)
            return
        model = identity | {"since": self._clock.wall_ms(), "first_offsets": named}
        self._models = (model, *self._models)[:MODELS]
