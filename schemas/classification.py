"""What the worker publishes: every label's probability for one input record."""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

SHA256 = r"^[0-9a-f]{64}$"


class _Contract(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class LabelScore(_Contract):
    """One label of the model and its probability."""

    label: str = Field(description="The label's name, from the model's `id2label`.")
    score: float = Field(ge=0, le=1, description="Its probability.")


class SourceRef(_Contract):
    """Where the input record lies."""

    topic: str = Field(description="The input topic.")
    partition: int = Field(ge=0, description="The input partition.")
    offset: int = Field(ge=0, description="The input record's offset.")
    timestamp_ms: int = Field(description="The input record's timestamp, ms since 1970 UTC.")


class ModelRef(_Contract):
    """Which model said so."""

    name: str = Field(description="Hub id, directory name, or `bundled`.")
    revision: str = Field(description="The hub's commit, or `local`.")
    weights_sha256: str = Field(pattern=SHA256, description="SHA-256 of the weights file(s).")


class Classification(_Contract):
    """One input record, labelled."""

    id: str = Field(
        description="UUID (version 5) of source coordinates and weights: the same record and the "
        "same model give the same id, so a reader can drop repeats."
    )
    message_id: str | None = Field(
        default=None, description="The producer's own id, if the input carried one."
    )
    label: str = Field(description="The most probable label.")
    score: float = Field(ge=0, le=1, description="The most probable label's probability.")
    labels: list[LabelScore] = Field(
        min_length=1,
        description="Every label's probability, in the model's order. They sum to 1 for a "
        "single-label model; each stands alone for a multi-label one.",
    )
    token_count: int = Field(
        ge=0, description="Tokens of the text that the model saw, special tokens included."
    )
    truncated: bool = Field(description="Whether the text was longer than the model takes.")
    source: SourceRef = Field(description="Where the input record lies.")
    model: ModelRef = Field(description="Which model said so.")
    processed_at: datetime = Field(description="When the result was encoded, UTC.")
    processing_ms: float = Field(
        ge=0, description="Milliseconds from the poll of the input to the encoding of the result."
    )
