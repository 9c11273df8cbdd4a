"""Dead letters as they are read from their topic, and the filters that choose some of them.

Owns: the way back from a dead letter's headers to what it says.
Thread: any; pure.
Must not import: anything but core and schemas.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.classification import ModelRef, SourceRef
from worker.core.coordinates import GROUP_HEADER, SOURCE_HEADER, parse_source
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.records import Headers
from worker.core.replay import REPLAY_HEADER, Replay, parse_replay
from worker.core.replay_outcomes import Source
from worker.core.route_headers import COPY_HEADER, ROUTE_HEADER

OWN_HEADERS = frozenset(
    {SOURCE_HEADER, DEAD_LETTER_HEADER, REPLAY_HEADER, GROUP_HEADER, COPY_HEADER, ROUTE_HEADER}
)


class LetterContext(BaseModel):
    """A dead letter's document, read as a later version may have written it.

    The members are those of `schemas.DeadLetter`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: str
    message: str
    source: SourceRef
    value_state: str
    value_bytes: int
    complete: bool = True
    stack_hash: str | None = None
    attempt: int = 1
    worker_version: str
    failed_at: datetime
    model: ModelRef | None = None

    @property
    def failed_ms(self) -> int:
        """When the record became a dead letter, ms since 1970 UTC."""
        return round(self.failed_at.timestamp() * 1000)

    @property
    def exception(self) -> str:
        """The type of the exception that the record caused; empty without one."""
        return self.message.partition(":")[0] if self.stack_hash else ""


@dataclass(frozen=True, slots=True)
class Letter:
    """One record of the dead-letter topic.

    Attributes:
        partition, offset: its own coordinates.
        timestamp_ms: its own timestamp.
        context: None if it has no document that can be read.
        replay: the replay that failed; None if the record was tried once.
        group: of the backfill that it is of; empty for the worker's.
        cut: whether the reader has only the beginning of it.
        of_copy: whether it stands for a copy of a result, which a topic refused.
    """

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes
    headers: Headers
    context: LetterContext | None
    replay: Replay | None = None
    group: bytes = b""
    cut: bool = False
    of_copy: bool = False

    @property
    def unread(self) -> bool:
        """True if the topic has more of the value than was read."""
        context = self.context
        if context is None or context.value_state != "whole":
            return self.cut
        return self.cut or len(self.value) != context.value_bytes

    @property
    def source(self) -> Source | None:
        """Coordinates of the record that it was made of, which may be a replay's copy."""
        if self.context is None:
            return None
        source = self.context.source
        return source.topic, source.partition, source.offset

    @property
    def first(self) -> Source | None:
        """Coordinates of the record that became a dead letter first, before any replay."""
        return self.replay.source if self.replay else self.source

    @property
    def attempt(self) -> int:
        """Number of replays so far."""
        return self.replay.attempt if self.replay else 0


def read_letter(
    partition: int,
    offset: int,
    timestamp_ms: int,
    key: bytes | None,
    value: bytes,
    headers: Sequence[tuple[str, bytes | None]],
    *,
    cut: bool = False,
) -> Letter:
    """Return a record of the dead-letter topic with what its headers say.

    `cut` tells that only the beginning of the record was read.
    """
    return Letter(
        partition,
        offset,
        timestamp_ms,
        key,
        value,
        headers,
        _context(headers),
        parse_replay(last_header(headers, REPLAY_HEADER)),
        last_header(headers, GROUP_HEADER) or b"",
        cut,
        of_copy=last_header(headers, COPY_HEADER) is not None,
    )


def last_header(headers: Headers, name: str) -> bytes | None:
    """Return a header's last value, which is the worker's if the record had one of that name."""
    return next((value or b"" for key, value in reversed(headers) if key == name), None)


def _context(headers: Headers) -> LetterContext | None:
    document = last_header(headers, DEAD_LETTER_HEADER)
    source = parse_source(last_header(headers, SOURCE_HEADER) or b"")
    if document is None or source is None:
        return None
    try:
        context = LetterContext.model_validate_json(document)
    except ValidationError:
        return None
    told = context.source
    return context if (told.topic, told.partition, told.offset) == source else None


@dataclass(frozen=True, slots=True)
class LetterFilters:
    """Chooses dead letters; a filter that is not set chooses all.

    Attributes:
        since_ms, until_ms: when the record became a dead letter; `until_ms` is excluded.
        partitions: of the dead-letter topic.
        versions: of the worker.
        models: names, or beginnings of the hash of the weights.
        exceptions: types.
        stack_hashes: beginnings.
    """

    reasons: Collection[str] = ()
    since_ms: int | None = None
    until_ms: int | None = None
    partitions: Collection[int] = ()
    versions: Collection[str] = ()
    models: Collection[str] = ()
    exceptions: Collection[str] = ()
    stack_hashes: Collection[str] = ()

    def accept(self, letter: Letter) -> bool:
        """Return whether all filters choose a dead letter.

        One whose document can't be read has only its partition.
        """
        if self.partitions and letter.partition not in self.partitions:
            return False
        if letter.context is None:
            return LetterFilters(partitions=self.partitions) == self
        return self._accept(letter.context)

    def _accept(self, context: LetterContext) -> bool:
        return (
            (not self.reasons or context.reason in self.reasons)
            and (self.since_ms is None or context.failed_ms >= self.since_ms)
            and (self.until_ms is None or context.failed_ms < self.until_ms)
            and (not self.versions or context.worker_version in self.versions)
            and (not self.exceptions or context.exception in self.exceptions)
            and _begins(context.stack_hash, self.stack_hashes)
            and self._accept_model(context.model)
        )

    def _accept_model(self, model: ModelRef | None) -> bool:
        if not self.models:
            return True
        return model is not None and (
            model.name in self.models or _begins(model.weights_sha256, self.models)
        )


def _begins(text: str | None, beginnings: Collection[str]) -> bool:
    return not beginnings or (text is not None and text.startswith(tuple(beginnings)))
