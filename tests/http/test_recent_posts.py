"""The last posts: few, a sample, and no text where texts are not to be shown."""

from __future__ import annotations

from schemas import DeadLetterReason
from tests.support.clocks import HandClock
from tests.support.records import item, raw
from worker.core.records import Classified, DeadLettered, Outcome, Prediction
from worker.http.recent_posts import A_SECOND, KEPT, RecentPosts


def posts(*, texts: bool) -> tuple[RecentPosts, HandClock]:
    clock = HandClock()
    made = RecentPosts(texts=texts, clock=clock)
    made.labels = ("NEGATIVE", "POSITIVE")
    return made, clock


def classified(offset: int, text: str = "hi") -> Outcome:
    return Classified(item(offset, text), Prediction((0.2, 0.8), 3, truncated=False))


def test_the_newest_comes_first_with_its_probabilities() -> None:
    seen, clock = posts(texts=True)
    seen.note([classified(1, "one"), classified(2, "two")])
    two, one = seen.latest()
    assert two == {
        "id": "in/0/2",
        "at": clock.wall_ms(),
        "text": "two",
        "characters": 3,
        "scores": [("POSITIVE", 0.8), ("NEGATIVE", 0.2)],
    }
    assert one["text"] == "one"


def test_without_leave_no_text_is_kept() -> None:
    seen, _ = posts(texts=False)
    seen.note([classified(1, "private")])
    assert "private" not in str(vars(seen))
    assert seen.latest()[0]["characters"] == 7


def test_a_long_text_is_cut_and_an_odd_one_made_visible() -> None:
    seen, _ = posts(texts=True)
    seen.note([classified(1, "\x1b[2J\u202e" + "x" * 1_000_000)])
    post = seen.latest()[0]
    assert post["text"].startswith("[U+001B][2J[U+202E]xxx")
    assert len(post["text"]) < 350
    assert post["characters"] == 1_000_005


def test_a_dead_letter_shows_its_reason() -> None:
    seen, _ = posts(texts=True)
    seen.note([DeadLettered(raw(5), DeadLetterReason.NOT_UTF8, "not UTF-8")])
    assert seen.latest()[0]["reason"] == "not_utf8"


def test_only_some_of_each_second_are_kept() -> None:
    """What the page costs must not grow with the stream."""
    seen, clock = posts(texts=True)
    for _ in range(100):
        seen.note([classified(n) for n in range(50)])
    assert len(seen.latest()) == A_SECOND
    for _ in range(10):
        clock.sleep(1)
        seen.note([classified(n) for n in range(50)])
    assert len(seen.latest()) == KEPT


def test_a_slow_stream_is_shown_whole() -> None:
    seen, _ = posts(texts=True)
    for n in range(A_SECOND + 1):
        seen.note([classified(n)])
    assert [post["id"] for post in seen.latest()] == [
        f"in/0/{n}" for n in reversed(range(A_SECOND))
    ]
