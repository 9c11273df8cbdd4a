"""The wire contract: the messages that producers send and that the worker publishes.

Consumers of the output topic can use this package alone. `schemas/export.py` writes the same
contract for other languages.

Owns: the models of all messages.
Thread: any; the models are immutable.
Must not import: worker; anything but pydantic.
"""

from schemas.classification import Classification, LabelScore, ModelRef, SourceRef
from schemas.classifications import Classifications, ModelClassification
from schemas.dead_letter import DeadLetter, DeadLetterReason, ValueState
from schemas.decided import DecidedClassification
from schemas.text_message import TextMessage

__all__ = [
    "Classification",
    "Classifications",
    "DeadLetter",
    "DeadLetterReason",
    "DecidedClassification",
    "LabelScore",
    "ModelClassification",
    "ModelRef",
    "SourceRef",
    "TextMessage",
    "ValueState",
]
