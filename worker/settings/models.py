"""The options of several models that label each record: `[models.NAME]`.

Owns: one class for each such table, and the checks across them.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, Field

from worker.settings.conditions import WhenSettings
from worker.settings.decision import DecisionSettings
from worker.settings.prepare import PrepareSettings
from worker.settings.sections import ModelOptions
from worker.settings.toml_values import TOML, FrozenTable
from worker.settings.windows import Combine, Overflow

_NAME: Final = re.compile("[a-z0-9][a-z0-9_-]{0,39}")
NAMES_SCHEMA: Final[dict[str, Any]] = {"propertyNames": {"pattern": f"^{_NAME.pattern}$"}}


class NamedModelSettings(ModelOptions):
    """One of several models, and the records that it applies to."""

    name: str = Field(
        min_length=1,
        description="Model: a Hugging Face Hub id, a directory, or `bundled`.",
    )
    when: WhenSettings | None = Field(
        None,
        description="Records that the model applies to. "
        '`{path = "lang", in = ["en"]}`: by a field of the record. '
        '`{model = "language", label = ["en"]}`: by the label of another model. Default: all.',
    )
    prepare: PrepareSettings | None = Field(
        None, description="Preparation of its texts, instead of `[prepare]`."
    )
    decision: DecisionSettings | None = Field(
        None, description="Decision on its probabilities, instead of `[decision]`."
    )
    overflow: Overflow | None = Field(
        None, description="Treatment of long texts. Default: `input.overflow`."
    )
    stride: int | None = Field(None, ge=0, description="Default: `input.stride`.")
    max_windows: int | None = Field(
        None, ge=1, le=100_000, description="Default: `input.max_windows`."
    )
    combine: Combine | None = Field(None, description="Default: `input.combine`.")
    required: bool = Field(
        True,
        description="true: a record on which the model fails becomes a dead letter. false: the "
        "result has null in place of the model's, and the reason.",
    )


def _checked(models: Mapping[str, NamedModelSettings]) -> FrozenTable[NamedModelSettings]:
    for problem in _problems(models):
        raise ValueError(problem)
    return FrozenTable(models)


Models = Annotated[dict[str, NamedModelSettings], TOML, AfterValidator(_checked)]


def _problems(models: Mapping[str, NamedModelSettings]) -> Iterator[str]:
    for name, model in models.items():
        if not _NAME.fullmatch(name):
            yield (
                f"{name!r:.60} is no name of a model: use 1 to 40 lowercase letters, digits, "
                "hyphens or underscores, and begin with a letter or a digit"
            )
        other = model.when.model if model.when else None
        if other is not None and other not in models:
            known = ", ".join(models)
            yield f"models.{name}.when names the model {other!r}, and the models are {known}"
    for name in models:
        if circle := _circle(name, models):
            yield (
                f"the models wait for each other's labels: {' -> '.join(circle)}; remove one "
                "'when' among them"
            )


def _circle(name: str, models: Mapping[str, NamedModelSettings]) -> list[str]:
    """Return the models that a model waits for, if it waits for itself."""
    path = [name]
    while (when := models[path[-1]].when) and when.model:
        path.append(when.model)
        if when.model in path[:-1]:
            return path
    return []
