"""The options that turn a model's probabilities into a decision.

Owns: `[decision]`, and `[models.NAME.decision]`, which has the same options.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from pydantic import Field

from worker.settings.section import Section
from worker.settings.table import Pairs, ShareOrShares, Table

LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.05, 20.0
UNCERTAIN: Final = "UNCERTAIN"


class DecisionSettings(Section):
    """The decision that a result makes of the model's probabilities."""

    labels: Table = Field(
        Pairs(),
        description="New names of the model's labels, by the old ones. Labels with one new name are "
        "merged, and their probabilities added. A table of strings, or `old=new` pairs, "
        "comma-separated. A label that is not named keeps its name.",
    )
    temperature: float | None = Field(
        None,
        ge=LEAST_TEMPERATURE,
        le=MOST_TEMPERATURE,
        description="Number that divides the model's outputs before they become probabilities. Above "
        "1, the model is less confident. `streamlabel calibrate` finds it from labelled texts.",
    )
    threshold: ShareOrShares = Field(
        None,
        description="Probability from which on a label is in the result's `decided`. One number, "
        "or a table by label; a label that the table lacks has 0.5. In a flag or a variable, a table "
        "is `label=number` pairs, comma-separated. Default: results have no `decided`.",
    )
    min_score: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Probability that the most probable label needs. Below it, the result's label is "
        "`decision.uncertain_label`.",
    )
    min_margin: float | None = Field(
        None,
        gt=0,
        le=1,
        description="Lead that the most probable label needs over the next. Below it, the result's "
        "label is `decision.uncertain_label`. Only for models whose labels exclude each other.",
    )
    uncertain_label: str | None = Field(
        None,
        min_length=1,
        max_length=200,
        description=f"Label of a result below `min_score` or `min_margin`. Default: `{UNCERTAIN}`.",
    )
    top_k: int | None = Field(
        None,
        ge=1,
        description="Number of labels in a result, the most probable first. Default: all labels, in the "
        "model's order.",
    )
    digits: int | None = Field(
        None,
        ge=1,
        le=15,
        description="Decimal places of the probabilities in a result. Decisions use the whole number. "
        "Default: all places.",
    )

    @property
    def is_on(self) -> bool:
        """True if an option differs from its default."""
        return self != DecisionSettings()


def decision_problems(path: str, d: DecisionSettings) -> Iterator[str]:
    """Yield one sentence for each value that can't be meant; `path` names the table."""
    if d.uncertain_label is not None and d.min_score is None and d.min_margin is None:
        yield (
            f"{path}.uncertain_label = {d.uncertain_label!r} has no effect without "
            f"{path}.min_score or {path}.min_margin: set one of them"
        )
    if blank := [old for old, new in d.labels.items() if not new.strip()]:
        yield f"{path}.labels gives {blank[0]!r} an empty name: give each label a name"
