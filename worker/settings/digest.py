"""A digest of the settings that decide what becomes of a record.

A note of a filtered record has it, so that the settings that filtered the record can be told.

Owns: the choice of these settings.
Thread: any; pure.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from worker.settings.origins import plain_values
from worker.settings.windows import WINDOW_OPTIONS

if TYPE_CHECKING:
    from worker.settings.declaration import Settings

_DECIDE: Final = (
    "routes",
    "models",
    "model.name",
    "model.revision",
    "model.max_tokens",
    "model.activation",
    "decision.",
    "prepare.",
    *(f"input.{name}" for name in WINDOW_OPTIONS),
)
_CHARACTERS: Final = 16


def deciding_digest(settings: Settings) -> str:
    """Return 16 hexadecimal digits; `streamlabel routes list` and the log at start show them."""
    values = plain_values(settings)
    chosen = {path: one for path, one in values.items() if path.startswith(_DECIDE)}
    text = json.dumps(chosen, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:_CHARACTERS]
