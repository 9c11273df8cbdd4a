"""Connects a worker's pipeline to its page: the recent posts and the ask queue.

Owns: both, where `http.enabled` serves them; a worker without HTTP has no feeds.
Thread: `calls` on main; see `RecentPosts` and `AskQueue` for the rest.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
        tokenise: gives a question, if there is one, to the model in use. Tokenise thread.
        infer: answers it. Infer thread.
    """

    note: Callable[[Sequence[Outcome]], None] = lambda _: None
    tokenise: Callable[[Tokeniser, Classifier], None] = lambda _, __: None
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

    @property
    def calls(self) -> ModelFeeds:
        """The calls that a pipeline makes."""
        return ModelFeeds(self.posts.note, self.ask_queue.tokenise, self.ask_queue.infer)
