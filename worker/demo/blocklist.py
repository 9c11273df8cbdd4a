"""Leaves out posts that contain a slur or a sexual word.

The list, `blocked_words.txt`, holds hashes, so that nobody has to read or search such words in this
tree. A hash hides a word from view; it is not a secret. To block a word, pipe it to this module,
one word a line::

    python -m worker.demo.blocklist < words.txt

Owns: the list and the normalisation of words. A word is a run of letters and digits, in NFKC form,
    case-folded, without accents. Its hash is the first 16 hexadecimal digits of the SHA-256 of its
    UTF-8 bytes. A word with three or more equal letters in a row is also looked up with that run
    shortened to two letters and to one.
Thread: any.
Must not import: kafka, torch.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

from worker.demo.posts import RatedText

WORDS_FILE: Final = Path(__file__).with_name("blocked_words.txt")
_WORD: Final = re.compile(r"[^\W_]+")
_LONG_RUN: Final = re.compile(r"(.)\1{2,}")


@cache
def blocked_hashes() -> frozenset[str]:
    """Return the hashes of the list."""
    return frozenset(WORDS_FILE.read_text(encoding="ascii").split())


def word_hash(word: str) -> str:
    """Return the hash of a normalised word."""
    return hashlib.sha256(word.encode()).hexdigest()[:16]


def words(text: str) -> list[str]:
    """Return the normalised words of a text."""
    decomposed = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    return _WORD.findall("".join(char for char in decomposed if not unicodedata.combining(char)))


def is_blocked(text: str, hashes: frozenset[str]) -> bool:
    """Return whether a word of the text is on the list."""
    return any(
        word_hash(spelling) in hashes
        for word in words(text)
        for spelling in {word, _LONG_RUN.sub(r"\1\1", word), _LONG_RUN.sub(r"\1", word)}
    )


def allowed(posts: Iterable[RatedText], hashes: frozenset[str] | None = None) -> list[RatedText]:
    """Return the posts without a blocked word, in their order.

    Args:
        posts: the posts to filter.
        hashes: hashes of the blocked words; None takes the list of the package.
    """
    hashes = blocked_hashes() if hashes is None else hashes
    return [post for post in posts if not is_blocked(post.text, hashes)]


def add_words(lines: Iterable[str], path: Path = WORDS_FILE) -> int:
    """Add the words of these lines to the list; return how many were new."""
    listed = set(path.read_text(encoding="ascii").split()) if path.is_file() else set()
    hashes = {word_hash(word) for line in lines for word in words(line)}
    path.write_text("".join(f"{item}\n" for item in sorted(listed | hashes)), encoding="ascii")
    return len(hashes - listed)


if __name__ == "__main__":
    print(f"added {add_words(sys.stdin)} words to {WORDS_FILE.name}")
