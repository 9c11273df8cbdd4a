"""Keeps the models that the metrics have named since the start.

Owns: the list of models.
Thread: http, on the event loop.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from typing import Any, Final

from worker.http.reading import Reading

Json = dict[str, Any]

_KEPT: Final = 20
_PARTITIONS: Final = 1_000  # with a first offset


class ModelsSeen:
    """The models in use since the start, in a pool those of all processes."""

    def __init__(self) -> None:
        self._models: dict[tuple[str, str], Json] = {}

    def newest_first(self) -> list[Json]:
        """Return the last models.

        Returns:
            name, revision, weights_sha256; since: when it was first seen, milliseconds;
            first_offsets: the first offset of each "topic/partition" that it labelled.
        """
        return list(reversed(self._models.values()))

    def note(self, at: int, reading: Reading) -> None:
        """Take in a reading of this time, milliseconds."""
        for labels, _ in reading.series("model_info"):
            if "model" in labels:  # not yet while it loads
                self._model(labels, at)
        for labels, value in reading.series("model_first_offset"):
            offsets = self._model(labels, at)["first_offsets"]
            place = f"{labels['topic']}/{labels['partition']}"
            if len(offsets) < _PARTITIONS:
                offsets[place] = min(offsets.get(place, value), value)

    def _model(self, labels: dict[str, str], at: int) -> Json:
        key = labels.get("model", ""), labels.get("weights", "")
        if key not in self._models:
            self._models[key] = {
                "name": key[0],
                "revision": labels.get("revision", ""),
                "weights_sha256": key[1],
                "since": at,
                "first_offsets": {},
            }
            while len(self._models) > _KEPT:
                del self._models[next(iter(self._models))]
        return self._models[key]
