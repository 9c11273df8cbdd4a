"""Emoji by their names: those of the library, for every emoji and between all else."""

from __future__ import annotations

import sys

import emoji
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.core.decisions.emoji_names import EmojiNames, emoji_names
from worker.errors import SettingsError


@pytest.mark.parametrize("text", ["a{}b", "{}", " {0}{0}", "1{}#"])
def test_every_emoji_has_the_librarys_name(text: str) -> None:
    names = emoji_names()
    wrong = [
        one
        for one in emoji.EMOJI_DATA
        if names.replaced(text.format(one)) != emoji.demojize(text.format(one))
    ]
    assert not wrong


@given(
    st.lists(st.sampled_from(["❤️", "👍🏽", "😀", "a", "1", " ", "é", "👨‍👩‍👧", "🇩🇪"])).map("".join)
)
def test_names_are_the_librarys_among_other_characters(text: str) -> None:
    assert emoji_names().replaced(text) == emoji.demojize(text)


def test_a_name_stands_between_colons() -> None:
    assert emoji_names().replaced("I ❤️ it 👍🏽") == "I :red_heart: it :thumbs_up_medium_skin_tone:"


def test_a_megabyte_of_joined_emoji_takes_a_bounded_number_of_steps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library goes back at each joiner, so its time grows with the square of the text."""
    looked_at = 0
    at = EmojiNames._at

    def counting(names: EmojiNames, text: str, start: int) -> tuple[str, int]:
        nonlocal looked_at
        looked_at += 1
        return at(names, text, start)

    monkeypatch.setattr(EmojiNames, "_at", counting)
    emoji_names().replaced("👩\u200d" * 100_000)
    assert looked_at == 100_000


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    emoji_names.cache_clear()
    monkeypatch.setitem(sys.modules, "emoji", None)
    with pytest.raises(SettingsError, match=r"install streamlabel\[emoji\]"):
        emoji_names()
    emoji_names.cache_clear()
