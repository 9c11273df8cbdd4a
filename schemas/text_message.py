"""The input message, with `input.format = "json"` and the default paths.

Owns: the model of an input message.
Thread: any; the models are immutable.
Must not import: worker; anything but pydantic.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TextMessage(BaseModel):
    """A text to label. Other members are allowed, and kept in `enrich` mode."""

    model_config = ConfigDict(extra="allow")

    text: str = Field(min_length=1, description="Text to label. Must not be blank.")
    id: str | int | None = Field(
        default=None, description="Id of the message, copied to the result as `message_id`."
    )
