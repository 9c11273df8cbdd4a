"""Finds out whether a sample of the input has texts at the place that `input.*` describes.

Its messages contain the names of members, never a text.

Owns: the counts of the sample.
Thread: main, of `streamlabel check`; pure.
Must not import: kafka_io.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from schemas.dead_letter import DeadLetterReason
from worker.core.decoder import Decoder
from worker.core.formats.format import Format
from worker.core.formats.plain_json import JsonFormat
from worker.core.records import InvalidRecord, RawRecord
from worker.core.visible import excerpt
from worker.errors import RecordRejected
from worker.settings import InputSettings

_NAMES = 12  # members in a message
_NAME_CHARACTERS = 60
_DEPTH = 4  # steps of a suggested path
_MEMBERS = 100  # members of each object that are searched
_TEXT_CHARACTERS = 200  # longer strings count as this
_ADVICE: Final = {  # if no record can be read for one reason
    DeadLetterReason.NOT_JSON: 'no record is JSON: did you mean input.format = "text"?',
    DeadLetterReason.NOT_FRAMED: "no record has a schema's id: did you mean input.format = "
    '"json"?',
    DeadLetterReason.SCHEMA_FRAMED: "all are framed by a schema registry's serializer: did you "
    'mean input.format = "auto", with registry.url?',
}


class Sample:
    """Reads records as a worker does, and searches them for other places of a text.

    Args:
        settings: paths and bounds.
        format_: parses the values, as in `Decoder`.
    """

    def __init__(self, settings: InputSettings, format_: Format | None = None) -> None:
        self._settings, self._format = settings, format_ or JsonFormat()
        self._decoder = Decoder(settings, format_)
        self._reasons: Counter[DeadLetterReason] = Counter()
        self._members: Counter[str] = Counter()
        self._strings: Counter[str] = Counter()  # path -> characters in all
        self._objects = 0
        self.records = 0

    def note(self, record: RawRecord) -> None:
        """Add one record. Tombstones are not counted, as in a worker.

        Raises:
            SchemaPending: the record's schema is not known yet; note the record again later.
        """
        entry = self._decoder.decode(record)
        if isinstance(entry, InvalidRecord):
            if entry.reason is DeadLetterReason.NULL_VALUE:
                return
            self._reasons[entry.reason] += 1
        self.records += 1
        payload = None if record.cut else self._payload(record)
        if payload is not None:
            self._objects += 1
            self._members.update(list(payload)[:_MEMBERS])
            for path, characters in _strings(payload):
                self._strings[path] += characters

    def _payload(self, record: RawRecord) -> Mapping[str, Any] | None:
        value = record.value or b""
        try:
            payload = self._format.parse(value, record.headers, record.ref.topic).payload
        except RecordRejected:
            return None
        return payload if isinstance(payload, Mapping) else None

    @property
    def readable(self) -> int:
        """Records with a readable text."""
        return self.records - self._reasons.total()

    @property
    def unreadable_share(self) -> float:
        """Share of the records that can't be read for the most frequent reason."""
        return max(self._reasons.values(), default=0) / max(1, self.records)

    @property
    def doubtful(self) -> bool:
        """True if a record can't be read, or if the settings look wrong."""
        return bool(self._reasons) or bool(self._advice())

    def summary(self) -> str:
        """Return the findings as a message, with advice on the settings."""
        if not self.records:
            return "the input has no records yet to check for a text"
        reasons = ", ".join(f"{reason} {number}" for reason, number in self._reasons.most_common())
        parts = [f"text found in {self.readable} of {self.records}"]
        if reasons:
            parts[0] += f" ({reasons})"
            if self._members and self._settings.format != "text":
                parts.append(f"members: {', '.join(self._names())}")
        if advice := self._advice():
            parts.append(advice)
        return "; ".join(parts) if advice else "; ".join(parts) + "."

    def _names(self) -> list[str]:
        names = sorted(name for name, _ in self._members.most_common(_NAMES))
        more = ["..."] if len(self._members) > _NAMES else []
        return [excerpt(name, _NAME_CHARACTERS) for name in names] + more

    def _advice(self) -> str:
        if self._settings.format == "text":
            all_json = self._objects and self._objects == self.records
            return 'all are JSON objects: did you mean input.format = "json"?' if all_json else ""
        if self.readable or not self.records:
            return ""
        for reason, advice in _ADVICE.items():
            if self._reasons[reason] == self.records:
                return advice
        likely = max(self._strings, key=lambda path: self._strings[path], default=None)
        return f"did you mean {excerpt(likely, _NAME_CHARACTERS)}?" if likely else ""


def _strings(value: Any, path: str = "", depth: int = 0) -> Iterator[tuple[str, int]]:
    """Yield path and length of all strings, except where `input.text_path` can't hold the path."""
    if isinstance(value, str) and value.strip():
        yield path, min(len(value), _TEXT_CHARACTERS)
    if depth == _DEPTH or not isinstance(value, Mapping | list):
        return
    inner = list(value.items())[:_MEMBERS] if isinstance(value, Mapping) else enumerate(value[:1])
    for name, member in inner:
        step = str(name)
        if step and "." not in step:
            yield from _strings(member, f"{path}.{step}" if path else step, depth + 1)
