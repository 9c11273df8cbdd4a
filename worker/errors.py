"""The error tree, typed by the worker's response.

::

    StreamlabelError
    ├── SettingsError            wrong usage: report it, exit 2
    ├── Fatal                    STOP: drain what is safe, exit 1
    │   ├── ModelUnavailable         no such model, no classification head, unsafe weights
    │   ├── TopicMissing             the message has the command that creates it
    │   ├── AccessDenied             wrong credentials, a missing ACL
    │   ├── Fenced                   another worker has this worker's identity
    │   ├── InputDamaged             a batch can't be read; earlier records are labelled first
    │   ├── StreamUnreadable         too many records are unreadable for one reason
    │   ├── SchemaRefused            the registry refuses a schema
    │   │   └── RegistryDenied           it refuses the worker, or is not to be trusted
    │   ├── PublishRefused           the broker refuses a record permanently
    │   ├── CircuitOpen              the model or the output topic fails on too many records
    │   └── StageCrashed             a thread died; its cause is chained
    ├── ChangeUnderway           a second change of the model at a time
    ├── ModelUnchanged           the model that was to be loaded is the one in use
    ├── BrokerAway               RETRY: repeat the work, with backoff
    ├── RegistryAway             RETRY: the schema registry does not answer
    ├── OutOfMemory              SPLIT: halve the pass, and keep later passes smaller
    ├── TextSkipped              the settings' own function wants no label for the text
    └── RecordRejected           DEAD_LETTER: one record, with reason and message

The package that imports a third party translates its exceptions. An exception outside this tree
stops the worker.

Owns: the exceptions.
Thread: any.
Must not import: anything of worker.
"""

from __future__ import annotations


class StreamlabelError(Exception):
    """Base class of every error that streamlabel raises on purpose."""

    @property
    def summary(self) -> str:
        """The message, for those who may not read the log."""
        return str(self)


class SettingsError(StreamlabelError):
    """A setting is wrong; the message names the setting, its value, its bound and its origin."""


class ArgumentsError(SettingsError):
    """An argument of a command that is no setting is wrong; the message names it."""


class Fatal(StreamlabelError):
    """The worker can't go on; a restart resumes from the committed offsets."""


class ModelUnavailable(Fatal):
    """The model can't be loaded; the message says what to do."""


class TopicMissing(Fatal):
    """A topic does not exist; the message has the command that creates it."""


class AccessDenied(Fatal):
    """The broker denied this client an operation."""


class Fenced(Fatal):
    """Another member or producer has taken this worker's identity."""


class InputDamaged(Fatal):
    """An input batch can't be read; the message names it and the command that skips it."""


class StreamUnreadable(Fatal):
    """Most records can't be read for one reason; the message names it and the setting to check."""


class SchemaRefused(Fatal):
    """The schema registry refuses a schema; the message has its words."""


class RegistryDenied(SchemaRefused):
    """The schema registry refuses the worker's sign-in or certificate, or has a bad one itself."""


class Interrupted(KeyboardInterrupt):
    """A signal interrupts this command. Code of users may raise a plain KeyboardInterrupt."""


class PublishRefused(Fatal):
    """The broker refuses a record, and would refuse it again."""


class CircuitOpen(Fatal):
    """Too many records failed in the model or at the output topic; the records are not at fault."""


class StageCrashed(Fatal):
    """A stage's thread ended with an exception."""

    @classmethod
    def by(cls, cause: BaseException, what: str) -> StageCrashed:
        """Return the error for a part of the worker that ended with an unexpected exception."""
        remedy = (
            "a restart resumes from the committed offsets: report it with the stack in the log if it "
            "comes again"
        )
        name = type(cause).__name__
        crash = cls(f"{what}: {name}: {cause}; {remedy}")
        crash._summary = f"{what}: {name}, whose message is in the log; {remedy}"
        crash.__cause__ = cause
        return crash

    _summary = ""

    @property
    def summary(self) -> str:
        """The message without the cause's text, which may quote a record."""
        return self._summary or str(self)


class ChangeUnderway(StreamlabelError):
    """A change of the model was requested while another one has not ended."""


class ModelUnchanged(StreamlabelError):
    """The model that was to be loaded beside the one in use is that same model."""


class BrokerAway(StreamlabelError):
    """The broker can't be reached, or asks for a retry."""


class RegistryAway(StreamlabelError):
    """The schema registry can't be reached, or can't answer now."""


class OutOfMemory(StreamlabelError):
    """A forward pass did not fit in memory; the message has sizes and no text."""


class TextSkipped(StreamlabelError):
    """`prepare.function` wants no label for a text."""


class RecordRejected(StreamlabelError):
    """One record can't be labelled.

    Args:
        reason: a member of `schemas.dead_letter.DeadLetterReason`.
        message: the problem, without the record's text.
    """

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
