"""Why a record could not be labelled.

A dead letter's value is the original value, byte for byte; key, headers and timestamp are kept
as well. This document travels beside them, in one header.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from schemas.classification import SourceRef


class DeadLetterReason(StrEnum):
    """The closed list of reasons."""

    NULL_VALUE = "null_value"
    TOO_LARGE = "too_large"
    SCHEMA_FRAMED = "schema_framed"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    PATH_MISSING = "path_missing"
    NOT_A_STRING = "not_a_string"
    EMPTY_TEXT = "empty_text"
    TOO_MANY_TOKENS = "too_many_tokens"
    TOKENISER_FAILED = "tokeniser_failed"
    MODEL_FAILED = "model_failed"
    RESULT_TOO_LARGE = "result_too_large"
    RESULT_REFUSED = "result_refused"


class ValueState(StrEnum):
    """How the dead letter's value relates to the original one."""

    WHOLE = "whole"
    CUT = "cut"
    NULL = "null"


class DeadLetter(BaseModel):
    """The context of one dead letter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: DeadLetterReason = Field(description="Why, from a closed list.")
    message: str = Field(description="What was wrong, in words; never the text itself.")
    source: SourceRef = Field(description="Where the input record lies.")
    value_state: ValueState = Field(
        description="`whole`: the value is the original. `cut`: its first bytes. `null`: the "
        "original had none, and the value is empty."
    )
    value_bytes: int = Field(ge=0, description="Size of the original value, bytes.")
    complete: bool = Field(
        default=True,
        description="False where headers, or the key too, were left out: with them the record would "
        "have been larger than the dead-letter topic takes.",
    )
    stack_hash: str | None = Field(
        default=None,
        description="First 16 hex digits of the SHA-256 over the failing stack's files, functions "
        "and error type: equal for equal faults.",
    )
    attempt: int = Field(ge=1, description="How often the record was tried.")
    worker_version: str = Field(description="Version of streamlabel that gave up.")
    failed_at: datetime = Field(description="When it gave up, UTC.")
