"""The error tree, typed by what the worker does about each branch. Imports nothing.

::

    StreamlabelError
    ├── SettingsError            wrong usage: say it once, exit 2
    ├── Fatal                    STOP: drain what is safe, exit 1
    │   ├── ModelUnavailable         no such model, no head, unsafe weights
    │   ├── TopicMissing             names the command that creates it
    │   ├── AccessDenied             wrong credentials, a missing ACL
    │   ├── Fenced                   another worker took this one's identity
    │   ├── InputDamaged             a batch can't be read; what lies before it is labelled first
    │   ├── StreamUnreadable         records that can't be read, too many for one reason
    │   ├── PublishRefused           the broker refuses a record for good
    │   ├── CircuitOpen              model or output topic fail on everything
    │   └── StageCrashed             a thread died; its cause is chained
    ├── BrokerAway               RETRY: the same work again, with backoff
    ├── OutOfMemory              SPLIT: halves, and smaller forward passes from then on
    └── RecordRejected           DEAD_LETTER: one record, its reason and message

An exception of a third party is translated in the room that imports the third party. What is
not in this tree is unknown, and the unknown stops the worker.
"""

from __future__ import annotations


class StreamlabelError(Exception):
    """The root: everything that streamlabel raises on purpose."""


class SettingsError(StreamlabelError):
    """A setting is wrong; the message names setting, value, bound and origin."""


class Fatal(StreamlabelError):
    """The worker can't go on; a restart resumes from the committed offsets."""


class ModelUnavailable(Fatal):
    """The model can't be loaded; the message says what to do."""


class TopicMissing(Fatal):
    """A topic does not exist; the message has the command that creates it."""


class AccessDenied(Fatal):
    """The broker answered that this client may not do this."""


class Fenced(Fatal):
    """Another member or producer has taken this worker's identity."""


class InputDamaged(Fatal):
    """A batch of the input can't be read; the message names it and the command that leads past."""


class StreamUnreadable(Fatal):
    """Most records can't be read, for one reason; the message names it and what to set."""


class PublishRefused(Fatal):
    """The broker refuses a record and will refuse it again."""


class CircuitOpen(Fatal):
    """Too many records failed in the model, or at the output topic: it is not the records."""


class StageCrashed(Fatal):
    """A stage's thread ended with an exception."""


class BrokerAway(StreamlabelError):
    """The broker can't be reached, or asks to be tried again."""


class OutOfMemory(StreamlabelError):
    """A forward pass did not fit the memory; the message has sizes and no text."""


class RecordRejected(StreamlabelError):
    """One record can't be labelled.

    Args:
        reason: a member of `schemas.dead_letter.DeadLetterReason`.
        message: what was wrong, without the record's text.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
