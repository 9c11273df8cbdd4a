"""The models of a worker, and what belongs to each of them.

All code that builds a model asks `plans`. `[model]` and `[models.NAME]` look the same from there.

Owns: `ModelPlan`; the choice between `[model]` and `[models.NAME]`, and what a model inherits.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from worker.settings.conditions import WhenSettings
from worker.settings.decision import DecisionSettings
from worker.settings.models import NamedModelSettings
from worker.settings.prepare import PrepareSettings
from worker.settings.sections import InputSettings, ModelSettings
from worker.settings.toml_values import FrozenTable
from worker.settings.windows import WINDOW_OPTIONS

if TYPE_CHECKING:
    from worker.settings.declaration import Settings

# The sections whose change takes effect while a worker runs: they say which models it has.
CHANGEABLE: Final = ("model", "models", "prepare", "decision")


@dataclass(frozen=True)
class ModelPlan:
    """One model, and how it is used.

    Attributes:
        name: in results and settings; None for the one model of `[model]`.
        settings: of a worker with this model alone, as `[model]`.
        when: the records that it applies to; None for all.
        required: whether a record on which it fails becomes a dead letter.
    """

    name: str | None
    settings: Settings
    when: WhenSettings | None = None
    required: bool = True

    @property
    def options(self) -> ModelSettings:
        """The model, and how it runs."""
        return self.settings.model

    @property
    def prepare(self) -> PrepareSettings:
        """The preparation of its texts."""
        return self.settings.prepare

    @property
    def decision(self) -> DecisionSettings:
        """The decision on its probabilities."""
        return self.settings.decision

    @property
    def windows(self) -> InputSettings:
        """The treatment of long texts."""
        return self.settings.input

    @property
    def results(self) -> tuple[Any, ...]:
        """All that decides which results it has, and how it runs: equal plans need one load."""
        model = self.options.model_copy(update={"reload_on_change": False})
        windows = [getattr(self.windows, name) for name in WINDOW_OPTIONS]
        return (model, self.prepare, self.decision, *windows)


def plans(settings: Settings) -> tuple[ModelPlan, ...]:
    """Return the models in the order of the settings; at least one."""
    if not settings.models:
        return (ModelPlan(None, settings),)
    return tuple(_named(name, one, settings) for name, one in settings.models.items())


def unused_sections(settings: Settings) -> Iterator[str]:
    """Yield a sentence for each table that no model uses, as each has its own."""
    for section in ("prepare", "decision"):
        own = [getattr(model, section) for model in settings.models.values()]
        if own and None not in own and getattr(settings, section).is_on:
            yield (
                f"[{section}] has no effect, as each of [models] has its own: remove it, or the "
                f"tables models.NAME.{section}"
            )


def is_changeable(path: str) -> bool:
    """Return whether a change of an option takes effect while a worker runs."""
    return path.partition(".")[0] in CHANGEABLE


def with_models_of(settings: Settings, wanted: Settings) -> Settings:
    """Return settings with the models of others, and all else as it is."""
    return settings.model_copy(update={name: getattr(wanted, name) for name in CHANGEABLE})


def models_named(settings: Settings) -> str:
    """Return the name of the model, or the names that several have in the settings, for a log."""
    return "+".join(settings.models) or settings.model.name


def _named(name: str, own: NamedModelSettings, settings: Settings) -> ModelPlan:
    """Return the plan of a model, with threads and cache directory of `[model]`."""
    given = {option: getattr(own, option) for option in WINDOW_OPTIONS}
    windows = {option: value for option, value in given.items() if value is not None}
    alone = settings.model_copy(
        update={
            "model": settings.model.with_options(own),
            "models": FrozenTable(),
            "prepare": own.prepare or settings.prepare,
            "decision": own.decision or settings.decision,
            "input": settings.input.model_copy(update=windows),
        }
    )
    return ModelPlan(name, alone, own.when, own.required)
