"""The settings file of each slot, which names its model; a worker looks at it each second.

Runs on the harness's thread.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.chaos.decisions import SECOND_LABELS
from tests.support.models import make_checkpoint
from worker.settings.toml_values import inline

_OTHER = "other"


class SlotModels:
    """Two choices of the model, and the files that name one of them.

    Args:
        folder: takes the files.
        slots: their number.
        first: `model.name` or `models`, by path, as the workers start.
    """

    def __init__(self, folder: Path, slots: int, first: Mapping[str, Any]) -> None:
        self._folder, self._first = folder, first
        self._other: dict[int, bool] = {}
        for slot in range(slots):
            self._write(slot, first)

    def file(self, slot: int) -> Path:
        """Return the settings file of a slot."""
        return self._folder / f"slot-{slot}.toml"

    def change(self, slot: int) -> None:
        """Name the other model of two with the same labels."""
        self._other[slot] = not self._other.get(slot, False)
        self._write(slot, self._second() if self._other[slot] else self._first)

    def _second(self) -> Mapping[str, Any]:
        """Return the settings with other weights: of the only model, or of the second one."""
        other = self._folder / _OTHER
        if several := self._first.get("models"):
            if not other.exists():
                make_checkpoint(other, labels=SECOND_LABELS, seed=8)
            named = tomllib.loads(f"models = {several}")["models"]
            named["second"]["name"] = str(other)
            return {"models": inline(named)}
        if not other.exists():
            make_checkpoint(other, seed=8)
        return {"model.name": str(other)}

    def _write(self, slot: int, named: Mapping[str, Any]) -> None:
        file = self.file(slot)
        lines = (
            f"{path} = {value if path == 'models' else json.dumps(value)}\n"
            for path, value in named.items()
        )
        half = file.with_suffix(".new")
        half.write_text("".join(lines))
        half.replace(file)  # a worker never reads half of it
