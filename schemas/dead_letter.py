"""The context of a dead letter: the reason why a record could not be labelled.

A dead letter has the value of the original record, byte for byte, and its key, headers and
timestamp. The context is a JSON document in one more header.

Owns: the model of the context, and the list of reasons.
Thread: any; the models are immutable.
Must not import: worker; anything but pydantic.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field

from schemas.classification import ModelRef, SourceRef


class DeadLetterReason(StrEnum):
    """The reason why a record could not be labelled; a closed list."""

    NULL_VALUE = "null_value"
    TOO_LARGE = "too_large"
    SCHEMA_FRAMED = "schema_framed"
    NOT_FRAMED = "not_framed"
    UNKNOWN_SCHEMA = "unknown_schema"
    UNUSABLE_SCHEMA = "unusable_schema"
    SCHEMA_MISMATCH = "schema_mismatch"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    NOT_AN_OBJECT = "not_an_object"
    PATH_MISSING = "path_missing"
    NOT_A_STRING = "not_a_string"
    EMPTY_TEXT = "empty_text"
    PREPARE_FAILED = "prepare_failed"
    TOO_MANY_TOKENS = "too_many_tokens"
    TOKENISER_FAILED = "tokeniser_failed"
    MODEL_FAILED = "model_failed"
    RESULT_TOO_LARGE = "result_too_large"
    RESULT_REFUSED = "result_refused"


class ValueState(StrEnum):
    """The relation of the dead letter's value to the original one."""

    WHOLE = "whole"
    CUT = "cut"
    NULL = "null"


class DeadLetter(BaseModel):
    """The context of one dead letter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    reason: DeadLetterReason = Field(description="Reason why the record could not be labelled.")
    message: str = Field(
        description="Description of the error. Never contains the text of the record."
    )
    source: SourceRef = Field(description="Coordinates of the input record.")
    value_state: ValueState = Field(
        description="`whole`: the value equals the original. `cut`: the value is the beginning of "
        "the original. `null`: the original is null, and the value is empty."
    )
    value_bytes: int = Field(ge=0, description="Size of the original value, in bytes.")
    complete: bool = Field(
        default=True,
        description="False if the headers, or headers and key, were dropped because the record "
        "would have exceeded the limit of the dead-letter topic.",
    )
    stack_hash: str | None = Field(
        default=None,
        description="First 16 hex digits of a SHA-256 over the error's type and the files and "
        "functions of its stack. The same fault has the same hash.",
    )
    attempt: int = Field(ge=1, description="Number of times that the record was tried.")
    worker_version: str = Field(description="Version of the worker.")
    failed_at: datetime = Field(
        description="Time at which the record became a dead letter, in UTC."
    )
    model: ModelRef | None = Field(
        default=None,
        description="Model that the text was given to, or whose result was refused. Null if the "
        "record has no text that can be read.",
    )
