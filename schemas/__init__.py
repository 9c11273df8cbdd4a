"""The wire contract: what producers send and what the worker publishes.

Pydantic only; this package never imports `worker`, so that a consumer of the output topic can
use it alone. `schemas/export.py` writes the same contract for other languages.
"""

from schemas.classification import Classification, LabelScore, ModelRef, SourceRef
from schemas.dead_letter import DeadLetter, DeadLetterReason, ValueState
from schemas.text_message import TextMessage

__all__ = [
    "Classification",
    "DeadLetter",
    "DeadLetterReason",
    "LabelScore",
    "ModelRef",
    "SourceRef",
    "TextMessage",
    "ValueState",
]
