"""The result with preparation, decisions or windows: more members behind those of a classification.

With one of these features on, results have this form. In JSON, a member is there only if its
feature is on; in Avro and Protobuf it is null otherwise. The name on the wire stays
`Classification`, so that a schema registry sees a new version of the same record.

Owns: the members that these features add.
Thread: any; the models are immutable.
Must not import: worker; anything but pydantic.
"""

from __future__ import annotations

from pydantic import ConfigDict, Field

from schemas.classification import Classification, LabelScore
from schemas.text_message import TextMessage


class DecidedClassification(Classification):
    """The result for one input record, prepared, decided or read in windows.

    In JSON, a member is there only if its feature is on.
    """

    model_config = ConfigDict(title=Classification.__name__)

    label: str = Field(
        description="Most probable label; `decision.uncertain_label` below `decision.min_score` or "
        "`decision.min_margin`."
    )
    labels: list[LabelScore] = Field(
        min_length=1,
        description="Labels with their probabilities: all in the order of the model, or the "
        "`decision.top_k` most probable ones, the first one first.",
    )
    token_count: int = Field(
        ge=0,
        description="Number of tokens that the model read, special tokens included. A token in two "
        "windows counts once.",
    )
    truncated: bool = Field(
        description="True if the text was cut to the model's limit, or to `input.max_windows`."
    )
    prepared: str | None = Field(
        default=None, description="Steps that prepared the text for the model (`[prepare]`)."
    )
    temperature: float | None = Field(
        default=None, gt=0, description="Temperature of the probabilities (`decision.temperature`)."
    )
    decided: list[str] | None = Field(
        default=None,
        description="Labels that reach their threshold (`decision.threshold`), in the order of the "
        "model.",
    )
    windows: int | None = Field(
        default=None,
        ge=1,
        description='Number of windows that the text was read in (`input.overflow = "windows"`).',
    )
    total_tokens: int | None = Field(
        default=None,
        ge=0,
        description="Number of tokens of the whole text, special tokens included.",
    )


class EnrichedDecidedMessage(TextMessage):
    """The unchanged input object with the result, if it is prepared, decided or read in windows."""

    classification: DecidedClassification = Field(description="Result for the text of this object.")
