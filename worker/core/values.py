"""Values: dataclasses that nothing changes, made for each record.

Owns: the decorator `value_class`.
Thread: any.
Must not import: anything.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value_class(cls: type[T]) -> type[T]:
    """Return a class as a dataclass with slots that the type checker holds frozen.

    Python's own frozen dataclass sets each member through `object.__setattr__`, and takes about
    four times as long to make. A record is made into several values, with dozens of members.
    """
    return dataclass(slots=True, unsafe_hash=True)(cls)
