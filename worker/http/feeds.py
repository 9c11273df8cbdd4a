"""What people get of a worker's pipeline beside metrics: the last posts, and the box.

Nothing of it is there where nobody can look. Imports the ground floor, core and the rooms beside it.
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
    """RecentPosts are seen on the publish thread; the box is looked at by tokenise and infer."""

    posts: RecentPosts
    box: AskQueue

    @classmethod
    def on(cls, settings: HttpSettings, clock: Clock) -> Self:
        """Nothing seen, and nothing asked yet."""
        return cls(RecentPosts(texts=settings.show_texts, clock=clock), AskQueue(clock))

    def open(self, tokeniser: Tokeniser, classifier: Classifier) -> None:
        """The model is loaded."""
        self.posts.labels = classifier.card.labels
        self.box.open(tokeniser, classifier)
