"""The result that the worker publishes: every label's probability for one input record.

Owns: the model of a result.
Thread: any; the models are immutable.
Must not import: worker; anything but pydantic.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

SHA256 = r"^[0-9a-f]{64}$"


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelScore(_Contract):
    """A label of the model and its probability."""

    label: str = Field(description="Name of the label, from the model's `id2label`.")
    score: float = Field(ge=0, le=1, description="Probability of the label.")


class SourceRef(_Contract):
    """Coordinates of the input record."""

    topic: str = Field(description="Input topic.")
    partition: int = Field(ge=0, description="Partition of the input record.")
    offset: int = Field(ge=0, description="Offset of the input record.")
    timestamp_ms: int = Field(
        description="Timestamp of the input record, in milliseconds since 1970-01-01 UTC."
    )


class ModelRef(_Contract):
    """The model that labelled the text."""

    name: str = Field(description="Hub id, directory name, or `bundled`.")
    revision: str = Field(description="Commit on the hub, or `local`.")
    weights_sha256: str = Field(pattern=SHA256, description="SHA-256 of the model's weights.")


class Classification(_Contract):
    """The result for one input record."""

    id: str = Field(
        description="UUID (version 5) of the source coordinates and the weights. The same record "
        "and model always have the same id, so that readers can drop duplicates."
    )
    message_id: str | None = Field(
        default=None, description="Id of the input message, if it has one."
    )
    label: str = Field(description="Most probable label.")
    score: float = Field(ge=0, le=1, description="Probability of the most probable label.")
    labels: list[LabelScore] = Field(
        min_length=1,
        description="All labels with their probabilities, in the model's order. The probabilities "
        "sum to 1 for a single-label model, and are independent for a multi-label model.",
    )
    token_count: int = Field(
        ge=0, description="Number of tokens that the model read, special tokens included."
    )
    truncated: bool = Field(description="True if the text was cut to the model's limit.")
    source: SourceRef = Field(description="Coordinates of the input record.")
    model: ModelRef = Field(description="Model that labelled the text.")
    processed_at: datetime = Field(description="Time at which the result was encoded, in UTC.")
    processing_ms: float = Field(
        ge=0,
        description="Milliseconds from the poll of the input record to the encoding of the result.",
    )
