"""The form of a worker's results, which follows from the features that are on.

Owns: the choice of the form.
Thread: any.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.forms import DECIDED, PLAIN, SEVERAL, ResultForm

if TYPE_CHECKING:
    from worker.settings.declaration import Settings


def result_form(settings: Settings) -> ResultForm:
    """Return the form of results: the plain one, unless a feature adds members."""
    if settings.models:
        return SEVERAL
    adds = settings.decision.is_on or settings.prepare.is_on or settings.input.overflow == "windows"
    return DECIDED if adds else PLAIN
