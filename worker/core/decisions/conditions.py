"""Decides whether a condition of the settings holds for a record.

Owns: the meaning of each test of a field.
Thread: any; pure.
Must not import: kafka_io, inference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from worker.core.formats.walk import member
from worker.errors import RecordRejected
from worker.settings import FieldCondition

# Characters of a field that `matches` reads. The time of an expression with nested repeats grows
# with a power of the length, and nothing can interrupt it.
LONGEST_MATCHED: Final = 1_000
_MISSING: Final = object()


class FieldTest:
    """A condition on a field of the record's object.

    Args:
        settings: the condition; without `path` it holds for every record.
        missing: called with the path where a record lacks the field, or has it too long for
            `matches`.

    A field that is missing meets no condition but `exists = false`, and is no error. A field with
    more than `LONGEST_MATCHED` characters does not meet `matches`. An array
    meets `in` and `matches` if one of its members does, and `not_in` if none is among the values.
    """

    def __init__(
        self, settings: FieldCondition, missing: Callable[[str], None] = lambda _: None
    ) -> None:
        self._path = settings.path
        self._steps = tuple(settings.path.split(".")) if settings.path else ()
        self._in = frozenset(map(_key, settings.in_))
        self._not_in = frozenset(map(_key, settings.not_in))
        self._matches = re.compile(settings.matches) if settings.matches else None
        self._exists, self._missing = settings.exists, missing

    def holds(self, payload: Mapping[str, Any] | None) -> bool:
        """Return whether the condition holds for a record.

        Args:
            payload: the record's object; None if it has none.
        """
        if self._path is None:
            return True
        found = _member(payload, self._steps)
        if found is _MISSING:
            if self._exists is None:
                self._missing(self._path)
            return self._exists is False
        return self._exists is not False and self._accepts(found)

    def _accepts(self, found: Any) -> bool:
        values = found if isinstance(found, list) else [found]
        keys = {_key(value) for value in values if not isinstance(value, list | Mapping)}
        return (
            (not self._in or bool(keys & self._in))
            and not keys & self._not_in
            and (self._matches is None or any(map(self._match, values)))
        )

    def _match(self, value: Any) -> bool:
        if self._matches is None or not isinstance(value, str):
            return False
        if len(value) > LONGEST_MATCHED:
            self._missing(self._path or "")
            return False
        return bool(self._matches.fullmatch(value))


def _member(payload: Mapping[str, Any] | None, path: tuple[str, ...]) -> Any:
    try:
        return member(payload, path)
    except RecordRejected:
        return _MISSING


def _key(value: Any) -> tuple[bool, Any]:
    """Return what two equal values of JSON share: true and 1 are not equal, 1 and 1.0 are."""
    return isinstance(value, bool), value
