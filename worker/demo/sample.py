"""The sample stream: rated posts as records, with every kind of broken record among them.

Owns: keys, JSON values, the broken records and the expected dead-letter reason of each; pure and
    deterministic.
Thread: any.
Must not import: kafka, torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, Final

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


def sample_stream(posts: Sequence[RatedText], number: int, max_bytes: int) -> list[SampleRecord]:
    """Return `number` posts, with the broken and the odd records spread evenly among them.

    Args:
        posts: at least one; repeated under new ids if there are fewer than `number`.
        number: posts to send, special records excluded.
        max_bytes: the worker's `input.max_bytes`; one record is a byte larger.
    """
    plain = [_record(post) for post in islice(_repeated(posts), number)]
    special = [*_broken(max_bytes), *_odd()]
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


def _record(post: RatedText) -> SampleRecord:
    author = author_of(post.id.partition("~")[0])
    value = _json({"id": post.id, "text": post.text, "author": author})
    return SampleRecord(author.encode(), value, post.text, post.valence)


def _broken(max_bytes: int) -> Iterable[SampleRecord]:
    """Yield one record for each kind of bad input."""
    reasons = DeadLetterReason
    padding = max_bytes + 1 - len(_json({"text": ""}))
    bodies: list[tuple[str, DeadLetterReason, bytes | None]] = [
        ("not UTF-8", reasons.NOT_UTF8, b'{"id": "broken-1", "text": "caf\xe9 au lait"}'),
        ("not JSON", reasons.NOT_JSON, b'{"id": "broken-2", "text": "cut off he'),
        (
            "JSON, not an object",
            reasons.NOT_AN_OBJECT,
            _json(["broken-3", "a list, not an object"]),
        ),
        ("path missing", reasons.PATH_MISSING, _json({"id": "broken-4", "txt": "wrong member"})),
        ("text not a string", reasons.NOT_A_STRING, _json({"id": "broken-5", "text": 42})),
        ("text empty", reasons.EMPTY_TEXT, _json({"id": "broken-6", "text": ""})),
        ("text blank", reasons.EMPTY_TEXT, _json({"id": "broken-7", "text": " \n\u2003\t"})),
        ("null value", reasons.NULL_VALUE, None),
        ("over input.max_bytes", reasons.TOO_LARGE, _json({"text": "x" * padding})),
    ]
    for kind, reason, value in bodies:
        key = author_of(kind).encode()
        yield SampleRecord(key, value, f"({kind})", expected=reason)


def _odd() -> Iterable[SampleRecord]:
    """Yield unusual but valid records; each must be labelled."""
    surrogate = b'{"id": "odd-1", "text": "half an emoji \\ud83d is a good start"}'
    duplicate = b'{"id": "odd-2", "text": 7, "text": "the last one counts, which is great"}'
    texts = [
        "a NUL \x00 in the middle, how awful",
        "\u202eright to left by force\u202c, \u05e9\u05dc\u05d5\u05dd, \u0645\u0631\u062d\u0628\u0627",
        "zero\u200bwidth\u200djoined\ufeff and happy",
        "\x1b[2J\x1b]0;owned\x07[bold red]no markup[/bold red] please",
        "\U0001f600" * 2_000 + " far longer than the model takes",
    ]
    yield SampleRecord(
        author_of("odd-1").encode(), surrogate, "half an emoji \ufffd is a good start"
    )
    yield SampleRecord(
        author_of("odd-2").encode(), duplicate, "the last one counts, which is great"
    )
    for number, text in enumerate(texts, start=3):
        author = author_of(f"odd-{number}")
        value = _json({"id": f"odd-{number}", "text": text, "author": author})
        yield SampleRecord(author.encode(), value, text)


def _json(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
