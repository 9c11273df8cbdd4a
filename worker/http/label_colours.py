"""Gives a label its colour in a terminal: that of the page in dark mode.

The colour depends on the label alone: on its meaning if that is known, else on its hash. Green and
red are kept for labels that mean good and bad. `worker/web/colours.js` has the same rule.

Owns: the meanings and the colours.
Thread: any; pure.
Must not import: any other module of the worker.
"""

from __future__ import annotations

from typing import Final

OTHERS: Final = "#5f6e71"  # of labels that are summed up
_TONES: Final = {
    "#a5ebc8": ("very positive", "5 stars"),
    "#4fc38a": (
        *("positive", "pos", "good", "4 stars", "safe", "ham", "not spam"),
        *("non-toxic", "not toxic", "not hate", "non-offensive", "not offensive"),
    ),
    "#93a3a5": ("neutral", "neu", "mixed", "3 stars"),
    "#ee7a5e": (
        *("negative", "neg", "bad", "2 stars", "spam", "toxic", "hate", "hateful"),
        *("offensive", "unsafe", "obscene", "insult", "threat"),
    ),
    "#ffc2b0": ("very negative", "1 star", "severe toxic", "severe toxicity"),
}
_KNOWN: Final = {label: colour for colour, labels in _TONES.items() for label in labels}
_SLOTS: Final = (
    *("#4d78fb", "#f2a52c", "#9467d2", "#3dc9e2", "#c06c90"),
    *("#ab6a1c", "#8899ee", "#dadbfb", "#f4df75", "#1f93b8"),
)


def label_colour(label: str) -> str:
    """Return the colour of a label, `#rrggbb`."""
    known = _KNOWN.get(label.lower().replace("_", " ").strip())
    return known or _SLOTS[_fnv1a(label.encode("utf-8", "replace")) % len(_SLOTS)]


def _fnv1a(data: bytes) -> int:
    """Return the 32-bit hash FNV-1a (Fowler, Noll and Vo)."""
    value = 0x811C9DC5
    for byte in data:
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value
