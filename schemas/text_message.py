"""What a producer sends when `input.format = "json"` and the paths are the default ones."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TextMessage(BaseModel):
    """A text to label. Other members are allowed and are kept in `enrich` mode."""

    model_config = ConfigDict(extra="allow")

    text: str = Field(min_length=1, description="The text to label; not blank.")
    id: str | int | None = Field(
        default=None, description="The producer's own id, carried into the result."
    )
