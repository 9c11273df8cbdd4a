"""What foreign text looks like on a page: nothing in it may steer what shows it."""

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
def test_what_steers_is_shown_as_its_code(text: str, shown: str) -> None:
    assert excerpt(text, 100) == shown


def test_a_long_text_is_cut() -> None:
    assert excerpt("x" * 1_000_000, 280) == "x" * 280


def test_all_of_a_message_keeps_its_lines() -> None:
    assert (
        visible("one\n  \x1b[2Jtwo\r\n" + "x" * 1_000) == "one\n  [U+001B][2Jtwo \n" + "x" * 1_000
    )


@pytest.mark.parametrize("text", ["", " \n", "\x00\x1b", "\u200b\u2060", "\u202e \ufeff", "\u2028"])
def test_what_nobody_can_see_is_blank(text: str) -> None:
    assert blank(text)


@pytest.mark.parametrize("text", ["a", "\x00a", "👩\u200d👩", "\ufffd", "."])
def test_what_somebody_can_see_is_not(text: str) -> None:
    assert not blank(text)
