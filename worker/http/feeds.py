"""Connects a worker's pipeline to its page: what it tells the page, and the ask queue.

Owns: these parts, where `http.enabled` serves them; a worker without HTTP has no feeds.
Thread: `calls` on main; see each part for the rest.
Must not import: kafka, torch, worker.runtime.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from worker.clock import Clock
from worker.core.records import Outcome
from worker.http.ask import Aside, AskQueue
from worker.http.notes import Json, Notes
from worker.http.recent_dead_letters import RecentDeadLetters
from worker.http.recent_posts import RecentPosts
from worker.settings import HttpSettings


@dataclass(frozen=True, slots=True)
class ModelFeeds:
    """The pipeline's calls to the page; each does nothing without a page.

    Attributes:
        note: takes the outcomes that were published. Publish thread.
        tokenise: gives a question, if there is one, to the models in use. Tokenise thread.
        infer: answers it. Infer thread.
    """

    note: Callable[[Sequence[Outcome]], None] = lambda _: None
    tokenise: Callable[[Callable[[], Aside]], None] = lambda _: None
    infer: Callable[[], None] = lambda: None


@dataclass(slots=True)
class PageFeeds:
    """The page's links to the pipeline.

    Attributes:
        posts, dead_letters: written by the pipeline.
        ask_queue: emptied by the tokenise and infer threads.
        models: returns the models that labelled so far, oldest first; set by their owner.
    """

    posts: RecentPosts
    dead_letters: RecentDeadLetters
    ask_queue: AskQueue
    models: Callable[[], Sequence[Json]] = tuple

    @classmethod
    def on(cls, settings: HttpSettings, clock: Clock) -> Self:
        """Make empty feeds."""
        return cls(
            RecentPosts(texts=settings.show_texts, clock=clock),
            RecentDeadLetters(texts=settings.show_texts, clock=clock),
            AskQueue(clock),
        )

    @property
    def calls(self) -> ModelFeeds:
        """The calls that a pipeline makes."""
        return ModelFeeds(self.posts.note, self.ask_queue.tokenise, self.ask_queue.infer)

    def notes(self) -> Notes:
        """Return what the page shows beside the metrics. Any thread."""
        newest_first = tuple(reversed(self.models()))
        return Notes(self.posts.latest(), self.dead_letters.latest(), newest_first)
