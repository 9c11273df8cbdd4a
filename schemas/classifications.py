"""The result of several models: what each of them says, by its name in the settings.

With `[models.NAME]`, results have this form. A model that says nothing of a record is null, and
`absences` has the reason. In Protobuf, whose maps have no null, such a model is left out.

Owns: the model of such a result.
Thread: any; the models are immutable.
Must not import: worker; anything but pydantic.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from schemas.classification import LabelScore, ModelRef, SourceRef
from schemas.text_message import TextMessage


class ModelClassification(BaseModel):
    """The result of one of several models for a text."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str = Field(
        description="Most probable label, or the uncertain one of the model's decision."
    )
    score: float = Field(ge=0, le=1, description="Probability of the most probable label.")
    labels: list[LabelScore] = Field(
        min_length=1,
        description="Labels with their probabilities: all in the order of the model, or the most "
        "probable ones, the first one first.",
    )
    token_count: int = Field(
        ge=0, description="Number of tokens that the model read, special tokens included."
    )
    truncated: bool = Field(description="True if the text was cut for the model.")
    model: ModelRef = Field(description="The model.")
    prepared: str | None = Field(
        default=None, description="Steps that prepared the text for the model."
    )
    temperature: float | None = Field(
        default=None, gt=0, description="Temperature of the probabilities."
    )
    decided: list[str] | None = Field(
        default=None,
        description="Labels that reach their threshold, in the order of the model.",
    )
    windows: int | None = Field(
        default=None, ge=1, description="Number of windows that the text was read in."
    )
    total_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Number of tokens of the whole text, special tokens included.",
    )


class Classifications(BaseModel):
    """The result of several models for one input record."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(
        description="UUID (version 5) of the source coordinates and of all models. The same record "
        "and models always have the same id, so that readers can drop duplicates."
    )
    message_id: str | None = Field(
        default=None, description="Id of the input message, if it has one."
    )
    classifications: dict[str, ModelClassification | None] = Field(
        description="Results of the models, by their names in the settings. Null if a model "
        "has none."
    )
    absences: dict[str, str] = Field(
        description="Reasons for which models have no result, by their names: `not_applicable` (`models.NAME.when`), "
        "`skipped` (its preparation), or the reason of the dead letter that a required model would "
        "have made."
    )
    source: SourceRef = Field(description="Coordinates of the input record.")
    model: ModelRef = Field(
        description="The models together: their names in the settings, joined by `+`, the revision "
        "`set`, and a SHA-256 of all of them."
    )
    processed_at: datetime = Field(description="Time at which the result was encoded, in UTC.")
    processing_ms: float = Field(
        ge=0,
        description="Milliseconds from the poll of the input record to the encoding of the result.",
    )


class EnrichedBySeveralMessage(TextMessage):
    """The unchanged input object with the result of several models."""

    classification: Classifications = Field(description="Result for the text of this object.")
