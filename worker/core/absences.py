"""The models' own results for one record: what each said, or why it said nothing.

Owns: `Part`, `Absence` and the reasons of an absence.
Thread: any; the values are immutable.
Must not import: kafka_io, inference.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # records import this module
    from worker.core.records import ModelCard, Prediction

NOT_APPLICABLE: Final = "not_applicable"  # its `when` does not hold for the record
SKIPPED: Final = "skipped"  # its preparation skipped the text


@dataclass(frozen=True, slots=True)
class Part:
    """A model's prediction for a record.

    Attributes:
        prediction: in the order of the card's labels.
        card: of the model.
    """

    prediction: Prediction
    card: ModelCard


@dataclass(frozen=True, slots=True)
class Absence:
    """The reason why a model has no prediction for a record.

    Attributes:
        reason: `not_applicable`, `skipped`, or the dead letter's reason where the model failed and
            is not required.
    """

    reason: str


Parts = Mapping[str, Part | Absence]
