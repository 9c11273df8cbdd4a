"""Each step of the preparation: what it replaces, and that no text takes it long."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.core.decisions import text_steps


def published(text: str) -> str:
    """Return what cardiffnlp's model card calls `preprocess`, written as there."""
    new_text = []
    for t in text.split(" "):
        t = "@user" if t.startswith("@") and len(t) > 1 else t  # noqa: PLW2901
        t = "http" if t.startswith("http") else t  # noqa: PLW2901
        new_text.append(t)
    return " ".join(new_text)


WORDS = st.sampled_from(
    ["@", "@a", "@@", "http", "https://x.y", "http:", "a@b", "", " ", "\n", "é"]
)


@given(st.lists(WORDS | st.text(max_size=5)).map(" ".join))
def test_tweets_are_prepared_as_the_models_authors_do(text: str) -> None:
    assert text_steps.tweets(text) == published(text)


def test_a_mention_and_a_link_of_a_tweet() -> None:
    assert text_steps.tweets("@ann look: https://t.co/x !") == "@user look: http !"


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Tom &amp; Jerry", "Tom & Jerry"),
        ("&amp;lt;", "&lt;"),
        ("&#65;&#x41;&#x1F600;", "AA😀"),
        ("&#0000000000065; &#x0000000041;", "A A"),
        ("&#99999999999; &#xFFFFFFFFFF;", "� �"),
        ("&#000000000;", "�"),
        ("&unknown; a && b", "&unknown; a && b"),
    ],
)
def test_references_become_their_characters(text: str, plain: str) -> None:
    assert text_steps.references(text) == plain


def test_a_reference_of_a_million_digits_is_one_character() -> None:
    """Python's own function raises ValueError: it reads no number of more than 4,300 digits."""
    assert text_steps.references("&#" + "9" * 1_000_000 + ";") == "�"


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("see https://example.org/a?b=c#d.", "see URL."),
        ("(http://x.org/), WWW.x.org!", "(URL), URL!"),
        ("見てhttps://t.co/abcすごい", "見てURLすごい"),
        ('<a href="https://x.org">x</a>', '<a href="URL">x</a>'),
        ("https://пример.рф/путь и", "URL и"),
        ("http and www are words", "http and www are words"),
        ("https:// is no link", "https:// is no link"),
    ],
)
def test_links_are_replaced(text: str, replaced: str) -> None:
    assert text_steps.without_links(text, "URL") == replaced


@pytest.mark.parametrize(
    ("text", "replaced"),
    [
        ("@ann, @Bob_2: hi", "@user, @user: hi"),
        (".@ann (@bob)", ".@user (@user)"),
        ("@ann@mastodon.social.", "@user."),
        ("mail@example.org @ 5", "mail@example.org @ 5"),
        ("@@ann", "@@ann"),
    ],
)
def test_mentions_are_replaced(text: str, replaced: str) -> None:
    assert text_steps.without_mentions(text, "@user") == replaced


def test_a_replacement_is_no_pattern() -> None:
    assert text_steps.without_mentions("@a", r"\1") == r"\1"
    assert text_steps.without_links("http://a", r"\1") == r"\1"


def test_white_space_becomes_one_space() -> None:
    assert text_steps.one_space("\u2003 a\n\n\tb \u00a0c ") == "a b c"


@settings(deadline=None)  # the first text waits for the expression
@given(st.text())
def test_a_text_is_normalised(text: str) -> None:
    assert text_steps.normalised(text, "NFKC") == unicodedata.normalize("NFKC", text)
    assert text_steps.normalised(text, "NFC") == unicodedata.normalize("NFC", text)


def test_marks_in_a_row_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Normalisation sorts them in time that grows with the square of their number."""
    given_texts: list[str] = []

    def recording(_: str, text: str) -> str:
        given_texts.append(text)
        return text

    monkeypatch.setattr(text_steps.unicodedata, "normalize", recording)
    text_steps.normalised("a" + "\u0315\u0300" * 500_000, "NFC")
    (text,) = given_texts
    assert max(map(len, re.findall("[\u0315\u0300]+", text))) == 30
    assert text.replace("\u034f", "") == "a" + "\u0315\u0300" * 500_000
