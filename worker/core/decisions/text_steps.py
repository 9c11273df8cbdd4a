"""The steps that prepare a text, each a function from text to text.

Owns: the steps. The time of each is in proportion to the text, for hostile texts too.
Thread: any; pure.
Must not import: anything of worker.
"""

from __future__ import annotations

import html
import re
import sys
import unicodedata
from functools import cache
from typing import Final, Literal

# Up to white space, a quotation mark, an angle bracket, or a letter of Chinese, Japanese or Korean,
# which are written without spaces around a link.
_LINK: Final = re.compile(
    r'(?:https?://|www\.)[^\s<>"\u3000-\u9fff\uac00-\ud7af\uff00-\uffef]+', re.IGNORECASE
)
_AFTER_A_LINK: Final = ".,;:!?)]}'\u2019\u201d\u00bb\u2026"
# `@name`, and `@name@host` as Mastodon writes it; no address of mail.
_MENTION: Final = re.compile(r"(?<![\w@])@\w+(?:@\w[\w.-]*\w)?")
# References of more digits than a character has: Python refuses to read a number of 4,300 digits.
_LONG_REFERENCE: Final = re.compile(r"&#(?:[xX][0-9a-fA-F]{9,}|[0-9]{9,});?")
_MOST_DIGITS: Final = 8
# Marks in a row, which normalisation sorts in time that grows with their square. Unicode's
# "stream-safe text format" has the same bound, and sets U+034F between
# (https://www.unicode.org/reports/tr15/#Stream_Safe_Text_Format).
_MARKS: Final = 30
_JOINER: Final = "\u034f"


def tweets(text: str) -> str:
    """Return the text as cardiffnlp's tweet models expect it.

    Source: `preprocess` in https://huggingface.co/cardiffnlp/twitter-roberta-base-sentiment-latest.
    """
    return " ".join(_tweet_word(word) for word in text.split(" "))


def _tweet_word(word: str) -> str:
    if word.startswith("@") and len(word) > 1:
        return "@user"
    return "http" if word.startswith("http") else word


def references(text: str) -> str:
    """Return the text with HTML's character references replaced, once: `&amp;lt;` is `&lt;`."""
    return html.unescape(_LONG_REFERENCE.sub(_short_reference, text))


def _short_reference(match: re.Match[str]) -> str:
    mark = match[0][:3] if match[0][2] in "xX" else match[0][:2]
    digits = match[0][len(mark) :].rstrip(";").lstrip("0")
    return f"{mark}{digits or '0'};" if len(digits) <= _MOST_DIGITS else "\ufffd"


def normalised(text: str, form: Literal["NFC", "NFKC"]) -> str:
    """Return the text in a normalisation form, with U+034F after each 30 marks in a row."""
    if text.isascii():
        return text
    return unicodedata.normalize(form, many_marks().sub(rf"\g<0>{_JOINER}", text))


@cache
def many_marks() -> re.Pattern[str]:
    """Return an expression for as many marks as may follow each other, before another one."""
    marks = "".join(map(_escaped, filter(_is_mark, map(chr, range(sys.maxunicode + 1)))))
    return re.compile(f"[{marks}]{{{_MARKS}}}(?=[{marks}])")


def _is_mark(character: str) -> bool:
    return unicodedata.combining(character) > 0


def _escaped(character: str) -> str:
    return f"\\U{ord(character):08x}"


def without_links(text: str, replacement: str) -> str:
    """Return the text with each link replaced; the punctuation after it stays."""

    def replaced(match: re.Match[str]) -> str:
        link = match[0].rstrip(_AFTER_A_LINK)
        return replacement + match[0][len(link) :]

    return _LINK.sub(replaced, text)


def without_mentions(text: str, replacement: str) -> str:
    """Return the text with each mention of an account replaced."""
    return _MENTION.sub(lambda _: replacement, text)


def one_space(text: str) -> str:
    """Return the text with one space for each run of white space, and none at either end."""
    return " ".join(text.split())
