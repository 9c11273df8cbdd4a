"""The sample stream: rated posts as records, with every kind of broken record among them.

Owns: keys, the values in JSON, the broken records and the expected dead-letter reason of each; pure
    and deterministic. `avro_sample` has the values in Avro.
Thread: any.
Must not import: kafka, torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Final, Protocol

from schemas.dead_letter import DeadLetterReason
from worker.demo.posts import RatedText

_AUTHORS: Final = 600

DEFAULT_POSTS: Final = 3_000  # half a minute at the default rate
PARTITIONS: Final = 6  # of each of the demo's topics


@dataclass(frozen=True, slots=True)
class SampleRecord:
    """One record to send.

    Attributes:
        value: the bytes to send; None is a null value.
        text: the text to display; untrusted.
        valence: the human raters' mean, -4..4; None if the record is not a rated post.
        expected: the reason of the dead letter that it must become; None if it must be labelled.
    """

    key: bytes
    value: bytes | None
    text: str
    valence: float | None = None
    expected: DeadLetterReason | None = None


# A kind of bad input, the reason of its dead letter, and a value of that kind.
BrokenValue = tuple[str, DeadLetterReason, bytes | None]

# Unusual but valid; each must be labelled.
ODD_TEXTS: Final = (
    "a NUL \x00 in the middle, how awful",
    "\u202eright to left by force\u202c, \u05e9\u05dc\u05d5\u05dd, \u0645\u0631\u062d\u0628\u0627",
    "zero\u200bwidth\u200djoined\ufeff and happy",
    "\x1b[2J\x1b]0;owned\x07[bold red]no markup[/bold red] please",
    "\U0001f600" * 2_000 + " far longer than the model takes",
)


class SampleValues(Protocol):
    """Writes posts in one format, and knows what can be wrong with a value in it."""

    def post(self, post_id: str, text: str, author: str) -> bytes:
        """Return the value of a post."""

    def broken(self, max_bytes: int) -> Iterable[BrokenValue]:
        """Yield a value for each kind of bad input; one is larger than `max_bytes`."""

    def odd(self) -> Iterable[tuple[str, bytes]]:
        """Yield the text and the value of unusual records that are valid."""


class JsonSample:
    """Values in JSON."""

    def post(self, post_id: str, text: str, author: str) -> bytes:
        """Return an object."""
        return _json({"id": post_id, "text": text, "author": author})

    def broken(self, max_bytes: int) -> Iterable[BrokenValue]:
        """Yield a value for each kind of bad input."""
        reasons = DeadLetterReason
        padding = max_bytes + 1 - len(_json({"text": ""}))
        wrong_member = _json({"id": "broken-4", "txt": "wrong member"})
        yield "not UTF-8", reasons.NOT_UTF8, b'{"id": "broken-1", "text": "caf\xe9 au lait"}'
        yield "not JSON", reasons.NOT_JSON, b'{"id": "broken-2", "text": "cut off he'
        yield "JSON, not an object", reasons.NOT_AN_OBJECT, _json(["broken-3", "a list"])
        yield "path missing", reasons.PATH_MISSING, wrong_member
        yield "text not a string", reasons.NOT_A_STRING, _json({"id": "broken-5", "text": 42})
        yield "text empty", reasons.EMPTY_TEXT, _json({"id": "broken-6", "text": ""})
        yield "text blank", reasons.EMPTY_TEXT, _json({"id": "broken-7", "text": " \n\u2003\t"})
        yield "null value", reasons.NULL_VALUE, None
        yield "over input.max_bytes", reasons.TOO_LARGE, _json({"text": "x" * padding})

    def odd(self) -> Iterable[tuple[str, bytes]]:
        """Yield the text and the value of unusual records that are valid."""
        surrogate = b'{"id": "odd-1", "text": "half an emoji \\ud83d is a good start"}'
        duplicate = b'{"id": "odd-2", "text": 7, "text": "the last one counts, which is great"}'
        yield "half an emoji \ufffd is a good start", surrogate
        yield "the last one counts, which is great", duplicate
        for number, text in enumerate(ODD_TEXTS, start=3):
            yield text, self.post(f"odd-{number}", text, author_of(f"odd-{number}"))


def sample_stream(
    posts: Sequence[RatedText], number: int, max_bytes: int, values: SampleValues | None = None
) -> list[SampleRecord]:
    """Return `number` posts, with the broken and the odd records spread evenly among them.

    Args:
        posts: at least one; repeated under new ids if there are fewer than `number`.
        number: posts to send, special records excluded.
        max_bytes: the worker's `input.max_bytes`; one record is larger.
        values: writes the values. Default: in JSON.
    """
    values = values or JsonSample()
    plain = [_record(post, values) for post in islice(_repeated(posts), number)]
    special = [*_broken(values, max_bytes), *_odd(values)]
    mixed: list[SampleRecord] = []
    for index, record in enumerate(special):
        start, end = (len(plain) * step // len(special) for step in (index, index + 1))
        mixed += [record, *plain[start:end]]
    return mixed


def author_of(post_id: str) -> str:
    """Return a post's author, always the same one; a few authors write most of the posts."""
    digest = hashlib.sha256(post_id.encode()).digest()
    share = int.from_bytes(digest[:8], "big") / 2**64
    return f"author-{int(_AUTHORS * share**3):03d}"


def _repeated(posts: Sequence[RatedText]) -> Iterable[RatedText]:
    yield from posts
    for round_ in count(2):
        for post in posts:
            yield RatedText(f"{post.id}~{round_}", post.text, post.valence)


def _record(post: RatedText, values: SampleValues) -> SampleRecord:
    author = author_of(post.id.partition("~")[0])
    value = values.post(post.id, post.text, author)
    return SampleRecord(author.encode(), value, post.text, post.valence)


def _broken(values: SampleValues, max_bytes: int) -> Iterable[SampleRecord]:
    for kind, reason, value in values.broken(max_bytes):
        key = author_of(kind).encode()
        yield SampleRecord(key, value, f"({kind})", expected=reason)


def _odd(values: SampleValues) -> Iterable[SampleRecord]:
    for number, (text, value) in enumerate(values.odd(), start=1):
        yield SampleRecord(author_of(f"odd-{number}").encode(), value, text)


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
