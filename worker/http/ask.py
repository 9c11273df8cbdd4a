"""Answers a text from the page with the worker's own model, between two micro-batches.

Owns: the pending question.
Thread: `ask` on http (parent-watch in a pool), `tokenise` and `infer` on the threads of that name.
Must not import: kafka, torch, worker.runtime.

The tokenise thread owns the tokenizer and the infer thread the model, so a question visits both:
each checks for one between two micro-batches, and while its inbox is empty. A question goes the way
of a record's text through preparation, windows, models and decisions, and touches no offset, cache,
circuit breaker or metric: its failure affects nothing else. The queue holds one question; a newer
one replaces one whose asker has given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

from schemas.dead_letter import DeadLetterReason
from worker.clock import Clock
from worker.core.model import Step, no_step
from worker.core.records import (
    DeadLettered,
    Filtered,
    MicroBatch,
    Outcome,
    RawRecord,
    RecordRef,
    WorkItem,
)
from worker.errors import StreamlabelError
from worker.http.said import answered
from worker.logs import get_logger

log = get_logger(__name__)

Result = TypeVar("Result")


class Unanswerable(StreamlabelError):
    """The tokenizer or the model failed on the text, or the process that was asked has ended."""


class Tokenised(Protocol):
    """A micro-batch that is ready for the model."""

    def infer(self, step: Step) -> list[Outcome]:
        """Return the outcome of each record. Infer thread only."""
        ...  # pragma: no cover - a protocol


class Aside(Protocol):
    """Labels texts as records are labelled, and leaves no trace of it."""

    def tokenise(self, batch: MicroBatch, step: Step) -> Tokenised:
        """Cut a micro-batch into forward passes. Tokenise thread only."""
        ...  # pragma: no cover - a protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question.

    Attributes:
        said: what the models say; see `said.answered`.
        seconds: time in the tokenizer and the model, without the waits.
    """

    said: Mapping[str, Any]
    seconds: float


class SupportsAsk(Protocol):
    """Answers questions: one worker's `AskQueue`, or the parent of a pool."""

    @property
    def ready(self) -> bool:
        """True once there is a model to ask."""
        ...

    def ask(self, text: str, record: Mapping[str, Any] | None = None) -> Future[Answer]:
        """Queue a question without waiting; the future may raise `Unanswerable`.

        Args:
            text: to label.
            record: the object that it is from, for the conditions on its fields.
        """
        ...


@dataclass(slots=True)
class _Question:
    batch: MicroBatch
    answer: Future[Answer]
    seconds: float = 0.0
    tokenised: Tokenised | None = None  # by the labeller that answers it


_NOWHERE: Final = RecordRef("", 0, 0, 0)
_FAILED: Final = (DeadLetterReason.MODEL_FAILED, DeadLetterReason.TOKENISER_FAILED)


def _batch(text: str, record: Mapping[str, Any] | None) -> MicroBatch:
    raw = RawRecord(_NOWHERE, 0, None, None, (), 0.0)
    return MicroBatch((WorkItem(raw, text, payload=record),), "ready", 0.0, 0.0)


class AskQueue:
    """Passes one question from thread to thread. Each slot has one writer and one reader."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ready = False
        self._untokenised: deque[_Question] = deque(maxlen=1)
        self._tokenised: deque[_Question] = deque(maxlen=1)

    @property
    def ready(self) -> bool:
        """True once a stage checks for questions, which it does as soon as there is a model."""
        return self._ready

    def ask(self, text: str, record: Mapping[str, Any] | None = None) -> Future[Answer]:
        """Queue a question, in place of one that is still queued. One thread at a time.

        The future raises `Unanswerable` if the tokenizer or the model fails on the text.
        """
        question = _Question(_batch(text, record), Future())
        self._untokenised.append(question)
        return question.answer

    def tokenise(self, aside: Callable[[], Aside]) -> None:
        """Tokenise the queued question, if there is one. Tokenise thread only.

        Args:
            aside: makes a labeller of the models in use; it answers the question.
        """
        self._ready = True
        question = _pop(self._untokenised)
        if question is None:
            return
        question.tokenised = self._attempt(
            question, lambda: aside().tokenise(question.batch, no_step)
        )
        if question.tokenised is not None:
            self._tokenised.append(question)

    def infer(self) -> None:
        """Answer the tokenised question, if there is one. Infer thread only."""
        question = _pop(self._tokenised)
        if question is None or question.tokenised is None:
            return
        tokenised = question.tokenised
        said = self._attempt(question, lambda: _said(tokenised.infer(no_step)[0]))
        if said is not None and question.answer.set_running_or_notify_cancel():
            question.answer.set_result(Answer(said, question.seconds))

    def _attempt(self, question: _Question, step: Callable[[], Result]) -> Result | None:
        """Run one step; return None if the question was cancelled or the step failed.

        A failure goes to the question's future.
        """
        if question.answer.cancelled():
            return None
        began = self._clock.monotonic()
        try:
            return step()
        except Exception as error:  # noqa: BLE001 - no question may end a stage
            reason = str(error) if isinstance(error, Unanswerable) else _failed(error)
            log.warning("no answer to a text from the page", reason=reason)
            if question.answer.set_running_or_notify_cancel():
                question.answer.set_exception(Unanswerable(reason))
            return None
        finally:
            question.seconds += self._clock.monotonic() - began


def _failed(error: Exception) -> str:
    return f"the model failed on this text: {type(error).__name__}"


def _said(outcome: Outcome) -> Mapping[str, Any]:
    if isinstance(outcome, Filtered):
        return {"filtered": outcome.words}
    if not isinstance(outcome, DeadLettered):
        return answered(outcome)
    if outcome.reason in _FAILED:
        raise Unanswerable(f"the model failed on this text: {outcome.message}")
    raise Unanswerable(outcome.message)


def _pop(slot: deque[_Question]) -> _Question | None:
    """Pop atomically; another thread may replace the question."""
    try:
        return slot.popleft()
    except IndexError:
        return None
