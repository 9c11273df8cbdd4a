"""Generated records: legal, odd, broken. The same seed gives the same records."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

_ODD = (
    "\ud800", "\udfff\ud800", "\0", "\u202e desrever", "\u200b\u200d\ufeff", "\x1b[31m", "👩‍👩‍👧", "שלום",
    "مرحبا", "ﷺ", "Z͑ͫ̓a͉l", "<script>", "\r\n", "\U0010ffff", "A" * 300, "😀" * 50, " ", "\u3000", "\u2028",
)  # fmt: skip
_BARE = (
    b"", b" ", b"null", b"true", b"[]", b"{}", b"0", b'""', b"NaN", b"-", b"{", b'{"text":}', b"\xff\xfe",
    b'\xef\xbb\xbf{"text":"bom"}', b'{"text":"a"}{"text":"b"}', b"\x00\x00\x00\x05hello", b'{"text":"\xc3"}',
)  # fmt: skip
_NUMBERS = (
    b"9" * 400,
    b"9" * 5000,
    b"1e999",
    b"-1e-999",
    b"NaN",
    b"Infinity",
    b"01",
    b"1.",
    b"0x1",
)


def _text(r: random.Random) -> str:
    parts = [r.choice(_ODD) if r.random() < 0.3 else _word(r) for _ in range(r.randrange(8))]
    return " ".join(parts)


def _word(r: random.Random) -> str:
    return "".join(r.choice("abcdefghij éü,.!") for _ in range(r.randrange(1, 9)))


def _value(r: random.Random, depth: int = 0) -> Any:
    kind = r.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [_value(r, depth + 1) for _ in range(r.randrange(4))]
    if kind == 6:
        return {_text(r): _value(r, depth + 1) for _ in range(r.randrange(4))}
    return (None, r.random() < 0.5, r.randrange(-(10**20), 10**20), r.random() * 1e9, _text(r))[
        kind
    ]


def _message(r: random.Random) -> bytes:
    message = {"id": _value(r, 3), "text": _text(r), "more": _value(r)}
    items = list(message.items())
    r.shuffle(items)
    return json.dumps(dict(items), ensure_ascii=r.random() < 0.7).encode("utf-8", "surrogatepass")


def _another_type(r: random.Random) -> bytes:
    return json.dumps({"text": _value(r), "x": _value(r)}).encode()


def _mutated(r: random.Random) -> bytes:
    value = bytearray(_message(r))
    for _ in range(r.randrange(1, 5)):
        value[r.randrange(len(value))] = r.randrange(256)
    return bytes(value[: r.randrange(len(value) + 1)]) if r.random() < 0.3 else bytes(value)


def _numbers(r: random.Random) -> bytes:
    return b'{"text":"numbers","n":' + r.choice(_NUMBERS) + b"}"


def _duplicates(r: random.Random) -> bytes:
    return b'{"text":%s,"text":%s}' % (_value_bytes(r), _value_bytes(r))


def _value_bytes(r: random.Random) -> bytes:
    return json.dumps(_value(r, 3)).encode()


def _nested(r: random.Random) -> bytes:
    depth = r.choice((10, 500, 900, 2000, 50_000))
    return b'{"text":"deep","classification":' + b"[" * depth + b"]" * depth + b"}"


def _noise(r: random.Random) -> bytes:
    return r.randbytes(r.randrange(60))


_MAKERS: tuple[tuple[Callable[[random.Random], bytes | None], int], ...] = (
    (_message, 50),
    (_mutated, 20),
    (_another_type, 10),
    (_noise, 8),
    (_numbers, 4),
    (_duplicates, 4),
    (lambda r: r.choice(_BARE), 3),
    (lambda _: None, 1),
    (_nested, 1),
)


def records(seed: int, number: int) -> Iterator[bytes | None]:
    """`number` values of records."""
    r = random.Random(seed)
    makers = r.choices([m for m, _ in _MAKERS], [weight for _, weight in _MAKERS], k=number)
    for make in makers:
        yield make(r)
