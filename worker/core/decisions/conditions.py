"""Decides whether the conditions of the settings hold for a record.

Owns: the meaning of each test of a field and of a label.
Thread: any; pure.
Must not import: kafka_io, inference.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from worker.core.formats.walk import member
from worker.errors import RecordRejected
from worker.settings import Conditions, ConditionSettings

# Returns the label that a model chose, or None if it has none for the record.
LabelOf = Callable[[str], str | None]
_MISSING: Final = object()


class FieldTest:
    """A condition on a field of the record's object.

    A field that is missing meets no condition but `exists = false`, and is no error. An array
    meets `in` and `matches` if one of its members does, and `not_in` if none is among the values.

    Args:
        settings: a condition with `path`.
        missing: called with the path where a record lacks the field.
    """

    def __init__(
        self, settings: ConditionSettings, missing: Callable[[str], None] = lambda _: None
    ) -> None:
        self._path = settings.path or ""
        self._steps = tuple(self._path.split("."))
        self._in = frozenset(map(_key, settings.in_))
        self._not_in = frozenset(map(_key, settings.not_in))
        self._matches = re.compile(settings.matches) if settings.matches else None
        self._exists, self._missing = settings.exists, missing

    def holds(self, payload: Mapping[str, Any] | None) -> bool:
        """Return whether the condition holds for a record.

        Args:
            payload: the record's object; None if it has none.
        """
        found = _member(payload, self._steps)
        if found is _MISSING:
            if self._exists is None:
                self._missing(self._path)
            return self._exists is False
        if self._exists is not None:
            return self._exists
        return self._accepts(found if isinstance(found, list) else [found])

    def _accepts(self, values: list[Any]) -> bool:
        if self._matches is not None:
            return any(isinstance(one, str) and self._matches.fullmatch(one) for one in values)
        keys = {_key(one) for one in values if not isinstance(one, list | Mapping)}
        return bool(keys & self._in) if self._in else not keys & self._not_in


class RecordConditions:
    """The conditions of a model or of a route, all of which must hold.

    Args:
        settings: the conditions.
        missing: called with the path where a record lacks a field.
    """

    def __init__(
        self, settings: Conditions, missing: Callable[[str], None] = lambda _: None
    ) -> None:
        self._fields = [FieldTest(one, missing) for one in settings if one.path is not None]
        self._labels = [(one.model, frozenset(one.label)) for one in settings if one.model]

    def fields_hold(self, payload: Mapping[str, Any] | None) -> bool:
        """Return whether the conditions on fields hold for a record's object."""
        return all(test.holds(payload) for test in self._fields)

    def labels_hold(self, label_of: LabelOf) -> bool:
        """Return whether the conditions on labels hold for what the models say."""
        return all(label_of(model) in labels for model, labels in self._labels)

    def hold(self, payload: Mapping[str, Any] | None, label_of: LabelOf) -> bool:
        """Return whether all conditions hold for a record."""
        return self.labels_hold(label_of) and self.fields_hold(payload)


def _member(payload: Mapping[str, Any] | None, path: tuple[str, ...]) -> Any:
    try:
        return member(payload, path)
    except RecordRejected:
        return _MISSING


def _key(value: Any) -> tuple[bool, Any]:
    """Return what two equal values of JSON share: true and 1 are not equal, 1 and 1.0 are."""
    return isinstance(value, bool), value
