"""Connects a worker's pipeline to its page: the recent posts and the ask queue.

Owns: both, where `http.enabled` serves them; a worker without HTTP has no feeds.
Thread: `for_model` on main; see `RecentPosts` and `AskQueue` for the rest.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Self

from worker.clock import Clock
from worker.core.model import Classifier, Tokeniser
from worker.core.records import Outcome
from worker.http.ask import AskQueue
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


@dataclass(frozen=True, slots=True)
class PageFeeds:
    """The page's links to the pipeline.

    Attributes:
        posts: written by the publish thread.
        ask_queue: emptied by the tokenise and infer threads.
    """

    posts: RecentPosts
    ask_queue: AskQueue

    @classmethod
    def on(cls, settings: HttpSettings, clock: Clock) -> Self:
        """Make empty feeds."""
        return cls(RecentPosts(texts=settings.show_texts, clock=clock), AskQueue(clock))

    def for_model(self, tokeniser: Tokeniser, classifier: Classifier) -> ModelFeeds:
        """Return the calls that a pipeline with this model makes."""
        return ModelFeeds(
            note=partial(self.posts.note, labels=classifier.card.labels),
            tokenise=partial(self.ask_queue.tokenise, tokeniser),
            infer=partial(self.ask_queue.infer, classifier),
        )
