"""The models of a worker, and what belongs to each of them.

Whoever builds a model asks `plans`: `[model]` and `[models.NAME]` look the same from there.

Owns: `ModelPlan`; the choice between `[model]` and `[models.NAME]`, and what a model inherits.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from worker.settings.conditions import WhenSettings
from worker.settings.models import NamedModelSettings
from worker.settings.sections import ModelSettings

if TYPE_CHECKING:
    from worker.settings.declaration import Settings


@dataclass(frozen=True)
class ModelPlan:
    """One model, and how it is used.

    Attributes:
        name: in results and settings; None for the one model of `[model]`.
        options: the model, and how it runs.
        when: the records that it applies to; None for all.
        required: whether a record on which it fails becomes a dead letter.
    """

    name: str | None
    options: ModelSettings
    when: WhenSettings | None = None
    required: bool = True


def plans(settings: Settings) -> tuple[ModelPlan, ...]:
    """Return the models in the order of the settings; at least one."""
    if not settings.models:
        return (ModelPlan(None, settings.model),)
    return tuple(_named(name, one, settings) for name, one in settings.models.items())


def _named(name: str, own: NamedModelSettings, settings: Settings) -> ModelPlan:
    """Return the plan of a model, with threads and cache directory of `[model]`."""
    return ModelPlan(name, settings.model.with_options(own), own.when, own.required)
