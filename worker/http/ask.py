"""Answers a text from the page with the worker's own model, between two micro-batches.

Owns: the pending question.
Thread: `ask` on http (parent-watch in a pool), `tokenise` and `infer` on the threads of that name.
Must not import: kafka, torch, worker.runtime.

The tokenise thread owns the tokenizer and the infer thread the model, so a question visits both:
each checks for one between two micro-batches, and while its inbox is empty. A question touches no
record, offset, cache or metric, and its failure affects nothing else. The queue holds one question;
a newer one replaces one whose asker has given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from worker.clock import Clock
from worker.core.budget import ForwardBudget
from worker.core.decided_members import marks
from worker.core.decisions.whole_texts import whole_text
from worker.core.model import Classifier, Tokeniser
from worker.core.records import ModelInput, Prediction
from worker.errors import RecordRejected, StreamlabelError, TextSkipped
from worker.logs import get_logger

log = get_logger(__name__)

Result = TypeVar("Result")


class Unanswerable(StreamlabelError):
    """The tokenizer or the model failed on the text, or the process that was asked has ended."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The model's answer to a question.

    Attributes:
        labels: the model's labels, in the order of the probabilities.
        prediction: the probabilities.
        seconds: time in the tokenizer and the model, without the waits.
        marks: the decision, if there is one; see `core.decided_members`.
    """

    labels: tuple[str, ...]
    prediction: Prediction
    seconds: float
    marks: Mapping[str, Any] = field(default_factory=dict)


class SupportsAsk(Protocol):
    """Answers questions: one worker's `AskQueue`, or the parent of a pool."""

    @property
    def ready(self) -> bool:
        """True once there is a model to ask."""
        ...

    def ask(self, text: str) -> Future[Answer]:
        """Queue a question without waiting; the future may raise `Unanswerable`."""
        ...


@dataclass(slots=True)
class _Question:
    text: str
    answer: Future[Answer]
    seconds: float = 0.0
    model_input: ModelInput | None = None
    classifier: Classifier | None = None  # of the tokenizer that made `model_input`


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

    def ask(self, text: str) -> Future[Answer]:
        """Queue a question, in place of one that is still queued. One thread at a time.

        The future raises `Unanswerable` if the tokenizer or the model fails on the text.
        """
        question = _Question(text, Future())
        self._untokenised.append(question)
        return question.answer

    def tokenise(self, tokeniser: Tokeniser, classifier: Classifier) -> None:
        """Tokenise the queued question, if there is one. Tokenise thread only.

        Args:
            tokeniser: of the model in use.
            classifier: of the same model; it answers the question.
        """
        self._ready = True
        question = _pop(self._untokenised)
        if question is None:
            return
        question.model_input = self._attempt(
            question, lambda: tokeniser.tokenise([question.text])[0]
        )
        if question.model_input is not None:
            question.classifier = classifier
            self._tokenised.append(question)

    def infer(self) -> None:
        """Answer the tokenised question, if there is one. Infer thread only."""
        question = _pop(self._tokenised)
        if question is None or question.model_input is None or question.classifier is None:
            return
        model_input, classifier = question.model_input, question.classifier
        prediction = self._attempt(question, lambda: _predicted(classifier, model_input))
        if prediction is not None and question.answer.set_running_or_notify_cancel():
            card = classifier.card
            question.answer.set_result(
                Answer(card.labels, prediction, question.seconds, marks(card, prediction))
            )

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
            name = type(error).__name__
            log.warning("model failed on a text from the page", error=name)
            if question.answer.set_running_or_notify_cancel():
                told = isinstance(error, RecordRejected | TextSkipped)
                reason = str(error) if told else f"the model failed on this text: {name}"
                question.answer.set_exception(Unanswerable(reason))
            return None
        finally:
            question.seconds += self._clock.monotonic() - began


def _predicted(classifier: Classifier, model_input: ModelInput) -> Prediction:
    """Return the prediction for one text, whose windows may need several passes."""
    card = classifier.card
    passes = ForwardBudget(card.forward_tokens, pads=card.pads).cut(model_input)
    rows = [row for part in passes for row in classifier.predict(part)]
    return whole_text(rows, model_input, card)


def _pop(slot: deque[_Question]) -> _Question | None:
    """Pop atomically; another thread may replace the question."""
    try:
        return slot.popleft()
    except IndexError:
        return None
