"""The blocklist leaves out posts by the hashes of whole, normalised words."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from worker.demo.blocklist import WORDS_FILE, add_words, allowed, blocked_hashes, is_blocked
from worker.demo.fallback_posts import fallback_posts
from worker.demo.posts import RatedText

# A made-up word; its hash is computed here without the code under test.
HASHES = frozenset({hashlib.sha256(b"blorft").hexdigest()[:16]})


@pytest.mark.parametrize(
    "text",
    [
        "blorft",
        "what a BLORFT!",
        "#blorft, he said",
        "a_blorft_b",
        "bl\u00f6rft",
        "blo\u0308rft",
        "\uff42\uff4c\uff4f\uff52\uff46\uff54",
        "blorrrrft",
        "blorftttt",
    ],
)
def test_a_blocked_word_is_found(text: str) -> None:
    """Case, accents, punctuation, wide letters and lengthening do not hide it."""
    assert is_blocked(text, HASHES)


@pytest.mark.parametrize("text", ["", "blorfts", "unblorft", "blo rft", "blor-ft", "blorrft"])
def test_only_whole_words_are_blocked(text: str) -> None:
    assert not is_blocked(text, HASHES)


def test_posts_with_a_blocked_word_are_left_out() -> None:
    """The other posts keep their order."""
    texts = ["fine", "a blorft", "also fine", "Blorft blorft"]
    posts = [RatedText(str(index), text, 0.0) for index, text in enumerate(texts)]
    assert [post.id for post in allowed(posts, HASHES)] == ["0", "2"]


def test_words_are_added_once(tmp_path: Path) -> None:
    """A line can hold several words; only hashes are written, in order."""
    path = tmp_path / "words.txt"
    assert add_words(["blorft", "Zorb quux"], path) == 3
    assert add_words(["BLORFT", "nyx"], path) == 1
    lines = path.read_text().splitlines()
    assert lines == sorted(lines)
    assert len(lines) == 4
    assert set(lines) > HASHES


def test_the_packaged_list_holds_hashes_only() -> None:
    """It is not empty, and blocks none of the posts of the package."""
    lines = WORDS_FILE.read_text().splitlines()
    assert lines == sorted(set(lines))
    assert all(re.fullmatch("[0-9a-f]{16}", line) for line in lines)
    assert len(blocked_hashes()) == len(lines) > 500
    assert allowed(fallback_posts()) == fallback_posts()
