"""Secrets in files of their own, which another program may replace while this one runs.

Owns: a secret's tie to its file, and its form in the settings that a parent hands to its children.
Thread: main loads them; any thread reads one again.
Must not import: anything of worker but `errors` and this package.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr

from worker.errors import SettingsError
from worker.settings.files import read_secret

_FILE: Final = "secret_file"


class FileSecret(SecretStr):
    """A secret of a file. Its value is the one at the start; `current` reads the file again.

    Attributes:
        file: that holds it.
    """

    def __init__(self, value: str, file: Path) -> None:
        super().__init__(value)
        self.file = file


def current(secret: SecretStr) -> str:
    """Return a secret as its file has it now; while the file has none, as it was at the start."""
    if isinstance(secret, FileSecret):
        with contextlib.suppress(SettingsError):
            return read_secret(secret.file) or secret.get_secret_value()
    return secret.get_secret_value()


def secret_in(file: Path, variable: str) -> FileSecret:
    """Return the secret of a file.

    Args:
        file: that holds it.
        variable: that names the file, for messages.

    Raises:
        SettingsError: the file can't be read, or is empty.
    """
    try:
        secret = read_secret(file)
    except SettingsError as error:
        raise SettingsError(f"{variable}: {error}") from None
    if not secret:
        raise SettingsError(f"{variable}: {file} is empty")
    return FileSecret(secret, file)


def handed_on(value: Any) -> Any:
    """Return a value fit for JSON: for a secret of a file its name, any other value as it is."""
    return {_FILE: str(value.file)} if isinstance(value, FileSecret) else value


def received(value: Any) -> Any:
    """Return a value that was handed on.

    Raises:
        SettingsError: as `secret_in`.
    """
    file = value.get(_FILE) if isinstance(value, dict) and len(value) == 1 else None
    return secret_in(Path(file), "settings of the parent process") if file else value
