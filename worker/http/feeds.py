"""Connects a worker's pipeline to its page: what it tells the page, and the ask queue.

Owns: these parts, where `http.enabled` serves them; a worker without HTTP has no feeds.
Thread: `for_model` on main; see each part for the rest.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Self

from worker.clock import Clock
from worker.core.model import Classifier, Tokeniser
from worker.core.records import Outcome
from worker.http.ask import AskQueue
from worker.http.notes import Json, Notes
from worker.http.recent_dead_letters import RecentDeadLetters
from worker.http.recent_models import RecentModels
from worker.http.recent_posts import RecentPosts
from worker.settings import HttpSettings


@dataclass(frozen=True, slots=True)
class ModelFeeds:
    """The pipeline's calls to the page; each does nothing without a page.

    Attributes:
        note: takes the outcomes that were published. Publish thread.
        tokenise, infer: work on a question, if there is one. On the threads of these names.
    """

    note: Callable[[Sequence[Outcome]], None] = lambda _: None
    tokenise: Callable[[], None] = lambda: None
    infer: Callable[[], None] = lambda: None


@dataclass(slots=True)
class PageFeeds:
    """The page's links to the pipeline.

    Attributes:
        posts, dead_letters, models: written by the pipeline.
        ask_queue: emptied by the tokenise and infer threads.
        shadow: returns the comparison with a second model; set by who makes it.
    """

    posts: RecentPosts
    dead_letters: RecentDeadLetters
    models: RecentModels
    ask_queue: AskQueue
    shadow: Callable[[], Json | None] = field(default=lambda: None)

    @classmethod
    def on(cls, settings: HttpSettings, clock: Clock) -> Self:
        """Make empty feeds."""
        texts = settings.show_texts
        return cls(
            RecentPosts(texts=texts, clock=clock),
            RecentDeadLetters(texts=texts, clock=clock),
            RecentModels(clock),
            AskQueue(clock),
        )

    def for_model(self, tokeniser: Tokeniser, classifier: Classifier) -> ModelFeeds:
        """Return the calls that a pipeline with this model makes."""
        self.models.note(classifier.card, {})
        return ModelFeeds(
            note=partial(self.posts.note, labels=classifier.card.labels),
            tokenise=partial(self.ask_queue.tokenise, tokeniser),
            infer=partial(self.ask_queue.infer, classifier),
        )

    def notes(self) -> Notes:
        """Return what the page shows beside the metrics. Any thread."""
        return Notes(
            self.posts.latest(), self.dead_letters.latest(), self.models.latest(), self.shadow()
        )
