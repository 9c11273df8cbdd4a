"""Untrusted text is displayed without control characters."""

from __future__ import annotations

import pytest

from worker.core.visible import blank, excerpt, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),
        ("two\r\nlines\tand a tab", "two  lines and a tab"),
        ("\x1b[31mred\x07", "[U+001B][31mred[U+0007]"),
        ("abc\u202efed", "abc[U+202E]fed"),
        ("\u2066isolated\u2069", "[U+2066]isolated[U+2069]"),
        ("zero\u200bwidth\ufeff", "zero[U+200B]width[U+FEFF]"),
        ("half \ud800", "half [U+D800]"),
        ("a\u2028b\u2029c", "a[U+2028]b[U+2029]c"),
        ("שלום, été, 東京", "שלום, été, 東京"),
        ("👩\u200d👩\u200d👧", "👩\u200d👩\u200d👧"),
    ],
)
def test_unsafe_characters_are_shown_as_codes(text: str, shown: str) -> None:
    assert excerpt(text, 100) == shown


def test_a_long_text_is_cut() -> None:
    assert excerpt("x" * 1_000_000, 280) == "x" * 280


def test_a_whole_message_keeps_its_lines() -> None:
    assert (
        visible("one\n  \x1b[2Jtwo\r\n" + "x" * 1_000) == "one\n  [U+001B][2Jtwo \n" + "x" * 1_000
    )


@pytest.mark.parametrize("text", ["", " \n", "\x00\x1b", "\u200b\u2060", "\u202e \ufeff", "\u2028"])
def test_text_without_visible_characters_is_blank(text: str) -> None:
    assert blank(text)


@pytest.mark.parametrize("text", ["a", "\x00a", "👩\u200d👩", "\ufffd", "."])
def test_text_with_visible_characters_is_not_blank(text: str) -> None:
    assert not blank(text)
