"""The sample's values in Avro, framed with the ids of their schemas.

Owns: the writers' schemas, and the broken values that only a framed stream can have.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from schemas.dead_letter import DeadLetterReason
from worker.demo.sample import ODD_TEXTS, BrokenValue
from worker.registry.samples import SampleRegistry

_UNKNOWN_ID: Final = b"\x7f\xff\xff\xff"
_GLUE: Final = b"\x03\x00" + bytes(range(16))  # AWS Glue's frame: no compression, a UUID

_POST: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Post",
    "namespace": "streamlabel.demo",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "text", "type": ["null", "string"]},
        {"name": "author", "type": "string"},
    ],
}
# The producer's next release: another field, with a default, before the text.
_NEXT_POST: Final[dict[str, Any]] = _POST | {
    "fields": [
        _POST["fields"][0],
        {"name": "tags", "type": {"type": "array", "items": "string"}, "default": []},
        *_POST["fields"][1:],
    ]
}
_LIKE: Final[dict[str, Any]] = {
    "type": "record",
    "name": "Like",
    "namespace": "streamlabel.demo",
    "fields": [{"name": "id", "type": "string"}],
}


class AvroSample:
    """Values in Avro; every second post is written by a newer release of the producer.

    Args:
        registry: gets the writers' schemas.
        topic: the input topic.
    """

    def __init__(self, registry: SampleRegistry, topic: str) -> None:
        self._posts = [registry.writer(f"{topic}-value", schema) for schema in (_POST, _NEXT_POST)]
        self._likes = registry.writer(f"{topic}-likes", _LIKE)
        self._written = 0

    def post(self, post_id: str, text: str | None, author: str) -> bytes:
        """Return a framed post."""
        self._written += 1
        document = {"id": post_id, "text": text, "author": author, "tags": ["demo"]}
        return self._posts[self._written % 2](document)

    def broken(self, max_bytes: int) -> Iterable[BrokenValue]:
        """Yield a value for each kind of bad input."""
        reasons = DeadLetterReason
        whole = self.post("broken", "never read", "nobody")
        yield "JSON, not framed", reasons.NOT_FRAMED, b'{"id": "broken-1", "text": "JSON"}'
        yield "unknown schema", reasons.UNKNOWN_SCHEMA, whole[:1] + _UNKNOWN_ID + whole[5:]
        yield "framed by AWS Glue", reasons.UNKNOWN_SCHEMA, _GLUE + whole[5:]
        yield "cut off", reasons.SCHEMA_MISMATCH, whole[:-3]
        yield "path missing", reasons.PATH_MISSING, self._likes({"id": "broken-5"})
        yield "text null", reasons.NOT_A_STRING, self.post("broken-6", None, "nobody")
        yield "text empty", reasons.EMPTY_TEXT, self.post("broken-7", "", "nobody")
        yield "text blank", reasons.EMPTY_TEXT, self.post("broken-8", " \n\u2003\t", "nobody")
        yield "null value", reasons.NULL_VALUE, None
        yield "over input.max_bytes", reasons.TOO_LARGE, self.post("", "x" * max_bytes, "nobody")

    def odd(self) -> Iterable[tuple[str, bytes]]:
        """Yield the text and the value of unusual records that are valid."""
        for number, text in enumerate(ODD_TEXTS, start=1):
            yield text, self.post(f"odd-{number}", text, "nobody")
