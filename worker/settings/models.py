"""The options of several models that label each record: `[models.NAME]`.

Owns: one class for each such table, and the checks across them.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from worker.settings.conditions import Conditions
from worker.settings.sections import ModelOptions
from worker.settings.toml_values import TOML, FrozenTable

_NAME: Final = re.compile("[a-z0-9][a-z0-9_-]{0,39}")


class NamedModelSettings(ModelOptions):
    """One of several models, and the records that it applies to."""

    name: str = Field(
        min_length=1,
        description="Model: a Hugging Face Hub id, a directory, or `bundled`.",
    )
    when: Conditions = Field(
        (),
        description="Records that the model applies to: one condition, or a list of conditions "
        'that must all hold. `{path = "lang", in = ["en"]}`: on a field of the record. '
        '`{model = "language", label = ["en"]}`: on the label of another model. Default: all '
        "records.",
    )

    @property
    def waits_for(self) -> tuple[str, ...]:
        """The models whose labels decide whether this one applies."""
        return tuple(one.model for one in self.when if one.model is not None)

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
        for other in model.waits_for:
            if other not in models:
                known = ", ".join(models)
                yield f"models.{name}.when names the model {other!r}, and the models are {known}"
                return
    for name in models:
        if circle := _circle((name,), models):
            yield (
                f"the models wait for each other's labels: {' -> '.join(circle)}; remove one "
                "condition among them"
            )


def _circle(path: tuple[str, ...], models: Mapping[str, NamedModelSettings]) -> tuple[str, ...]:
    """Return the models that lead from the last one of a path back to a model on it, if any."""
    for other in models[path[-1]].waits_for:
        if other in path:
            return (*path, other)
        if found := _circle((*path, other), models):
            return found
    return ()
