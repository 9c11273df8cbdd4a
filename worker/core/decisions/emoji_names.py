"""Replaces emoji by their names, as `emoji.demojize` does it.

The library itself takes hours for some texts of a megabyte: it goes back in the text at each
joiner, and searches a list of all joiners before.

Owns: the names, and the search for the longest emoji at a place.
Thread: any; the names are read once.
Must not import: anything of worker but errors. The package `emoji` is imported on first use.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import version
from typing import Final, NamedTuple

from worker.errors import SettingsError

# Code points between two that are searched for as one range: the search looks at each range.
_GAP: Final = 64
_VARIANTS: Final = str.maketrans("", "", "\ufe0e\ufe0f")  # plain or coloured; no part of a name


class EmojiNames(NamedTuple):
    """The names of all emoji.

    Attributes:
        version: of the library that has the names.
        names: of each emoji, with a colon before and after.
        first: finds a character that an emoji may begin with, and a few others.
        lengths: of the emoji that begin with a character, longest first.
    """

    version: str
    names: dict[str, str]
    first: re.Pattern[str]
    lengths: dict[str, tuple[int, ...]]

    def replaced(self, text: str) -> str:
        """Return the text with each emoji replaced by its English name, `:red_heart:`."""
        if text.isascii():
            return text
        pieces: list[str] = []
        done = 0
        while found := self.first.search(text, done):
            pieces.append(text[done : found.start()])
            name, done = self._at(text, found.start())
            pieces.append(name)
        return "".join((*pieces, text[done:])).translate(_VARIANTS)

    def _at(self, text: str, start: int) -> tuple[str, int]:
        """Return the name of the longest emoji at a place, or the character; and where it ends."""
        for length in self.lengths.get(text[start], ()):
            if name := self.names.get(text[start : start + length]):
                return name, start + length
        return text[start], start + 1


@cache
def emoji_names() -> EmojiNames:
    """Return the names of the installed library.

    Raises:
        SettingsError: it is not installed.
    """
    try:
        from emoji import EMOJI_DATA  # noqa: PLC0415 - it is an extra, and has megabytes
    except ImportError:
        raise SettingsError(
            'prepare.emoji = "names" needs the package emoji: install streamlabel[emoji]'
        ) from None
    names = {one: facts["en"] for one, facts in EMOJI_DATA.items() if "en" in facts}
    lengths: dict[str, set[int]] = {}
    for one in names:
        lengths.setdefault(one[0], set()).add(len(one))
    first = re.compile(f"[{''.join(_ranges(sorted(map(ord, lengths))))}]")
    ordered = {one: tuple(sorted(found, reverse=True)) for one, found in lengths.items()}
    return EmojiNames(version("emoji"), names, first, ordered)


def _ranges(codes: list[int]) -> Iterator[str]:
    """Yield the ranges of a character class that has these sorted code points, and few others."""
    start = end = codes[0]
    for code in (*codes[1:], sys.maxunicode + 1 + _GAP):
        if code - end > _GAP:
            yield f"\\U{start:08x}-\\U{end:08x}"
            start = code
        end = code
