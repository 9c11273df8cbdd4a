"""The box: a text that somebody types is labelled by the worker's own model, between micro-batches.

The model is the infer thread's and the tokenizer the tokenise thread's, so a question visits both:
each looks here between two micro-batches, and while it has none. What is asked touches no record, no
offset, no cache and no metric, and a question that fails fails alone. Holds one question at a time;
a newer one takes the place of one that nobody waits for any more. Imports core.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol, TypeVar

from worker.clock import Clock
from worker.core.model import Classifier, Tokeniser
from worker.core.records import ModelInput, Prediction
from worker.errors import StreamlabelError
from worker.logs import get_logger

log = get_logger(__name__)

Made = TypeVar("Made")


class Unanswerable(StreamlabelError):
    """The tokenizer or the model failed on the text, or whoever was asked has ended."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What the model says; `seconds` in the tokenizer and the model, waits left out."""

    labels: tuple[str, ...]
    prediction: Prediction
    seconds: float


class SupportsAsk(Protocol):
    """Whoever answers: a worker's box, or the parent of several workers."""

    @property
    def ready(self) -> bool:
        """Whether there is a model to ask."""
        ...

    def ask(self, text: str) -> Future[Answer]:
        """Leave a question, and never wait; the future may raise `Unanswerable`."""
        ...


@dataclass(slots=True)
class _Question:
    text: str
    answer: Future[Answer]
    seconds: float = 0.0
    model_input: ModelInput | None = None


class AskQueue:
    """Passes one question from thread to thread. Each slot has one that fills and one that empties."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._model: tuple[Tokeniser, Classifier] | None = None
        self._asked: deque[_Question] = deque(maxlen=1)
        self._cut: deque[_Question] = deque(maxlen=1)

    def open(self, tokeniser: Tokeniser, classifier: Classifier) -> None:
        """The model is loaded."""
        self._model = tokeniser, classifier

    @property
    def ready(self) -> bool:
        """Whether there is a model to ask."""
        return self._model is not None

    def ask(self, text: str) -> Future[Answer]:
        """Any one thread: leave a question, and cancel what is no longer waited for.

        The future raises `Unanswerable` where the model fails.
        """
        question = _Question(text, Future())
        self._asked.append(question)
        return question.answer

    def tokenise(self) -> None:
        """Tokenise thread: take the first step of a question, if there is one."""
        question = _taken(self._asked)
        if question is None or self._model is None:
            return
        tokeniser = self._model[0]
        question.model_input = self._tried(question, lambda: tokeniser.tokenise([question.text])[0])
        if question.model_input is not None:
            self._cut.append(question)

    def infer(self) -> None:
        """Infer thread: take the last one."""
        question = _taken(self._cut)
        if question is None or question.model_input is None or self._model is None:
            return
        classifier, given = self._model[1], question.model_input
        prediction = self._tried(question, lambda: classifier.predict(given)[0])
        if prediction is not None and question.answer.set_running_or_notify_cancel():
            labels = classifier.card.labels
            question.answer.set_result(Answer(labels, prediction, question.seconds))

    def _tried(self, question: _Question, step: Callable[[], Made]) -> Made | None:
        """A step's result; None where nobody waits, or it failed, of which the asker is told."""
        if question.answer.cancelled():
            return None
        began = self._clock.monotonic()
        try:
            return step()
        except Exception as error:  # noqa: BLE001 - no question may end a stage
            name = type(error).__name__
            log.warning("the model failed on a text from the page", error=name)
            if question.answer.set_running_or_notify_cancel():
                question.answer.set_exception(Unanswerable(f"the model fails on this text: {name}"))
            return None
        finally:
            question.seconds += self._clock.monotonic() - began


def _taken(slot: deque[_Question]) -> _Question | None:
    """What is there, at one blow: it may be replaced this moment."""
    try:
        return slot.popleft()
    except IndexError:
        return None
