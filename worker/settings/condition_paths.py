"""The fields of a record that conditions ask for, of routes and of models.

Owns: the list of these paths.
Thread: any; pure.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from worker.settings.declaration import Settings


def condition_paths(settings: Settings) -> tuple[str, ...]:
    """Return each path once, in the order of the settings, an outer one after those in it."""
    conditions = [route.path for route in settings.routes]
    conditions += [model.when.path for model in settings.models.values() if model.when]
    paths = dict.fromkeys(path for path in conditions if path is not None)
    return tuple(sorted(paths, key=lambda path: -path.count(".")))
