"""The last posts are a small sample, without their texts unless `http.show_texts` is set."""

from __future__ import annotations

from schemas import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.records import CARD, item, raw
from worker.core.records import Classified, DeadLettered, Filtered, Outcome, Prediction
from worker.http.notes import POSTS
from worker.http.recent_posts import PER_SECOND, RecentPosts


def posts(*, texts: bool) -> tuple[RecentPosts, HandClock]:
    clock = HandClock()
    recent = RecentPosts(texts=texts, clock=clock)
    return recent, clock


def classified(offset: int, text: str = "hi") -> Outcome:
    return Classified(item(offset, text), Prediction((0.2, 0.8), 3, truncated=False), CARD)


def test_the_newest_comes_first_with_its_probabilities() -> None:
    recent, clock = posts(texts=True)
    recent.note([classified(1, "one"), classified(2, "two")])
    newest, oldest = recent.latest()
    assert newest == {
        "id": "in/0/2",
        "at": clock.wall_ms(),
        "text": "two",
        "characters": 3,
        "scores": [("POSITIVE", 0.8), ("NEGATIVE", 0.2)],
    }
    assert oldest["text"] == "one"


def test_no_text_is_kept_unless_allowed() -> None:
    recent, _ = posts(texts=False)
    recent.note([classified(1, "private")])
    assert "private" not in str(vars(recent))
    assert recent.latest()[0]["characters"] == 7


def test_a_long_text_is_cut_and_control_characters_are_made_visible() -> None:
    recent, _ = posts(texts=True)
    recent.note([classified(1, "\x1b[2J\u202e" + "x" * 1_000_000)])
    post = recent.latest()[0]
    assert post["text"].startswith("[U+001B][2J[U+202E]xxx")
    assert len(post["text"]) < 350
    assert post["characters"] == 1_000_005


def test_a_dead_letter_shows_its_reason() -> None:
    recent, _ = posts(texts=True)
    recent.note([DeadLettered(raw(5), DeadLetterReason.NOT_UTF8, "not UTF-8")])
    assert recent.latest()[0]["reason"] == "not_utf8"


def test_a_few_posts_of_each_second_are_kept() -> None:
    """So the page's cost does not grow with the stream."""
    recent, clock = posts(texts=True)
    for _ in range(100):
        recent.note([classified(n) for n in range(50)])
    assert len(recent.latest()) == PER_SECOND
    for _ in range(10):
        clock.sleep(1)
        recent.note([classified(n) for n in range(50)])
    assert len(recent.latest()) == POSTS


def test_every_post_of_a_slow_stream_is_kept() -> None:
    recent, _ = posts(texts=True)
    for n in range(PER_SECOND + 1):
        recent.note([classified(n)])
    assert [post["id"] for post in recent.latest()] == [
        f"in/0/{n}" for n in reversed(range(PER_SECOND))
    ]


def test_a_record_that_was_skipped_shows_what_skipped_it() -> None:
    recent, _ = posts(texts=True)
    recent.note([Filtered(item(3), "prepare.function")])
    assert recent.latest()[0]["filtered"] == "prepare.function"
