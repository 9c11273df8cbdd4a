"""Foreign text for people's eyes: short, and with nothing in it that steers what shows it. Pure."""

from __future__ import annotations

import unicodedata
from typing import Final

# Cc steers terminals, Cf turns the writing's direction or hides, Cs is half a character, Zl and Zp
# break lines, Co and Cn are whatever a font makes of them.
_ODD: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"})
_UNSEEN: Final = frozenset({"Cc", "Cf", "Zl", "Zp"})
_JOINER: Final = "\u200d"  # what family emoji are glued with; harmless
_SPACES: Final = "\t\n\r"


def excerpt(text: str, most: int) -> str:
    """The first `most` characters, each odd one as its code: `[U+202E]` for a right-to-left mark.

    Line breaks and tabs become spaces.
    """
    return "".join(_shown(character) for character in text[:most])


def visible(text: str) -> str:
    """All of the text, line breaks included, each odd character as its code."""
    return "\n".join(excerpt(line, len(line)) for line in text.split("\n"))


def blank(text: str) -> bool:
    """True for a text of white space, controls and characters of no width alone."""
    return all(c.isspace() or unicodedata.category(c) in _UNSEEN for c in text)


def _shown(character: str) -> str:
    if character in _SPACES:
        return " "
    if character == _JOINER or unicodedata.category(character) not in _ODD:
        return character
    return f"[U+{ord(character):04X}]"
