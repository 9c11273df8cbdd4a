"""Connects a worker's pipeline to its page: the recent posts and the ask queue.

Owns: both, where `http.enabled` serves them; a worker without HTTP has no feeds.
Thread: `open` on main; see `RecentPosts` and `AskQueue` for the rest.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from worker.clock import Clock
from worker.core.model import Classifier, Tokeniser
from worker.http.ask import AskQueue
from worker.http.recent_posts import RecentPosts
from worker.settings import HttpSettings


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

    def open(self, tokeniser: Tokeniser, classifier: Classifier) -> None:
        """Serve this model's labels and answers from now on."""
        self.posts.labels = classifier.card.labels
        self.ask_queue.open(tokeniser, classifier)
