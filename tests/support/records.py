"""Records for tests."""

from __future__ import annotations

from schemas.dead_letter import DeadLetterReason
from worker.core.records import Headers, InvalidRecord, ModelCard, RawRecord, RecordRef, WorkItem

CARD = ModelCard(
    name="tiny",
    revision="local",
    weights_sha256="ab" * 32,
    labels=("NEGATIVE", "POSITIVE"),
    max_tokens=512,
    engine="torch",
    dtype="float32",
    device="cpu",
)


def raw(
    offset: int = 0,
    value: bytes | None = b'{"text":"hi"}',
    *,
    partition: int = 0,
    epoch: int = 1,
    key: bytes | None = None,
    headers: Headers = (),
    polled_at: float = 0.0,
) -> RawRecord:
    """Return a polled record of topic `in`."""
    ref = RecordRef("in", partition, offset, epoch)
    return RawRecord(ref, 1_700_000_000_000, key, value, headers, polled_at)


def item(offset: int = 0, text: str = "hi", *, partition: int = 0) -> WorkItem:
    """Return a record with its decoded text."""
    return WorkItem(raw(offset, partition=partition), text)


def invalid(offset: int = 0) -> InvalidRecord:
    """Return a record that could not be decoded."""
    return InvalidRecord(raw(offset, b"\xff"), DeadLetterReason.NOT_UTF8, "not UTF-8")
