"""Makes untrusted text safe to display: short, and without control characters.

Owns: the choice of characters that are displayed as codes.
Thread: any; pure functions.
Must not import: any other module of the worker.
"""

from __future__ import annotations

import unicodedata
from typing import Final

# Cc controls terminals, Cf changes the direction of the text or is invisible, Cs is a lone
# surrogate, Zl and Zp break lines, and the look of Co and Cn depends on the font.
_ENCODED: Final = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp", "Co", "Cn"})
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Zl", "Zp"})
_JOINER: Final = "\u200d"  # joins the parts of family emoji; harmless
_SPACES: Final = "\t\n\r"


def excerpt(text: str, most: int) -> str:
    """Return the first `most` characters, with unsafe ones as codes, such as `[U+202E]`.

    Line breaks and tabs become spaces.
    """
    return "".join(_shown(character) for character in text[:most])


def visible(text: str) -> str:
    """Return the whole text with its line breaks, and with unsafe characters as codes."""
    return "\n".join(excerpt(line, len(line)) for line in text.split("\n"))


def blank(text: str) -> bool:
    """Return whether a text has only white space, controls and characters without width."""
    return all(c.isspace() or unicodedata.category(c) in _INVISIBLE for c in text)


def _shown(character: str) -> str:
    if character in _SPACES:
        return " "
    if character == _JOINER or unicodedata.category(character) not in _ENCODED:
        return character
    return f"[U+{ord(character):04X}]"
