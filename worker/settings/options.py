"""The names of every option: its path, its flag and its variables.

Owns: `Option`, the list of all options, the prefix of variables.
Thread: any; the list is made once.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic.fields import FieldInfo

from worker.settings.declaration import Settings
from worker.settings.section import Section
from worker.settings.toml_values import TOML

ENV_PREFIX = "STREAMLABEL_"


@dataclass(frozen=True)
class Option:
    """One leaf of the declaration."""

    path: str
    flag: str
    env: tuple[str, ...]
    field: FieldInfo

    @property
    def secret(self) -> bool:
        """True if the value must never be shown."""
        return self.is_text or self._extra.get("secret") is True

    @property
    def is_text(self) -> bool:
        """True if a secret is a text, and no table."""
        return "SecretStr" in str(self.field.annotation)

    @property
    def quotable(self) -> bool:
        """True if a message may quote a wrong value."""
        return not self.secret and self._extra.get("quoted") is not False

    @property
    def _extra(self) -> Mapping[str, Any]:
        extra = self.field.json_schema_extra
        return extra if isinstance(extra, dict) else {}

    @property
    def is_switch(self) -> bool:
        """True if the flag takes no value."""
        return self.field.annotation is bool

    @property
    def is_toml(self) -> bool:
        """True if a flag and a variable take the value as TOML text."""
        return TOML in self.field.metadata

    @property
    def members(self) -> Mapping[str, FieldInfo]:
        """The members of each table, for an option that is a list or a table of tables."""
        return members_of(section_in(self.field.annotation))

    @property
    def choices(self) -> tuple[str, ...]:
        """The values of an option that takes one of a fixed few, else empty."""
        kinds = (self.field.annotation, *get_args(self.field.annotation))
        return next((get_args(kind) for kind in kinds if get_origin(kind) is Literal), ())

    @property
    def section(self) -> str:
        """The TOML table, empty for an option outside the sections."""
        return self.path.rpartition(".")[0]


def section_in(annotation: Any) -> type[Section] | None:
    """Return the class of the tables that a type holds, or None: of `tuple[Route, ...]`, Route."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    return next((found for kind in get_args(annotation) if (found := section_in(kind))), None)


def members_of(section: type[Section] | None) -> Mapping[str, FieldInfo]:
    """Return the members of a table by the names that a file has."""
    fields = section.model_fields if section else {}
    return {field.alias or name: field for name, field in fields.items()}


@cache
def options() -> tuple[Option, ...]:
    """Return every option in the order of the declaration, sections first."""
    leaves = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, Section):
            leaves += [_option(f"{name}.{key}", leaf) for key, leaf in section.model_fields.items()]
        else:
            leaves.append(_option(name, field))
    return tuple(leaves)


def _option(path: str, field: FieldInfo) -> Option:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    derived = ENV_PREFIX + path.upper().replace(".", "_")
    special: Any = extra.get("env") or ()
    own = tuple(name for name in special if name.startswith(ENV_PREFIX))
    foreign = tuple(name for name in special if not name.startswith(ENV_PREFIX))
    flag = extra.get("flag") or "--" + path.replace(".", "-").replace("_", "-")
    return Option(path, str(flag), (own or (derived,)) + foreign, field)
