"""The base class of every group of options.

Owns: `Section`; `named` for names not made from an option's path; `NOT_QUOTED`, `SECRET`.
Thread: any; a section is frozen.
Must not import: anything of worker.
"""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A table of the TOML file, and a prefix of flags and variables."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def named(flag: str | None = None, env: tuple[str, ...] = ()) -> dict[str, Any]:
    """Name the flag and the variables of an option, where its path would give others."""
    return {"flag": flag, "env": list(env)}


# An option without a secret of its own, whose wrong value may hold one: no message quotes it.
NOT_QUOTED: Final[dict[str, Any]] = {"quoted": False}
# A table that may hold a secret. An option of one value has the type SecretStr instead.
SECRET: Final[dict[str, Any]] = {"secret": True}
