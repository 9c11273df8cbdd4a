"""Files that settings come from: the TOML file, and files of which each holds one secret.

Reads and says what is wrong with a file; content is never shown, for it may be secret. Runs on the
main thread, before anything else. Imports `errors` alone.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from worker.errors import SettingsError

_LARGEST_SECRET: Final = 65_536  # bytes; a private key has a few thousand
_KEY_HEAD: Final = 65_536  # bytes; certificates may stand in front of a key


def read_toml(config: Path) -> dict[str, Any]:
    """The tables of a TOML file, with or without a byte order mark.

    Raises:
        SettingsError: it can't be read, or is no TOML.
    """
    try:
        return tomllib.loads(config.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        why = f"it is no UTF-8 text (byte {error.start})"
    except RecursionError:
        why = "its tables or lists are nested too deep"
    except (OSError, tomllib.TOMLDecodeError) as error:
        why = str(error)
    raise SettingsError(f"can't read the settings file {config}: {why}")


def read_secret(file: Path) -> str:
    """A secret without the line break at its end, which editors and `echo` leave.

    Raises:
        SettingsError: the file can't be read, or holds no text that may be a secret.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_SECRET + 1)
        if len(content) > _LARGEST_SECRET:
            raise SettingsError(f"{file} is larger than {_LARGEST_SECRET} bytes")
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SettingsError(f"{file} is no UTF-8 text") from None
    except OSError as error:
        raise SettingsError(f"{file} can't be read: {error.strerror}") from None


def files_in(folder: Path) -> dict[str, Path]:
    """The files of a directory, by their names in lower case.

    Raises:
        SettingsError: it can't be read.
    """
    try:
        return {file.name.lower(): file for file in folder.iterdir() if file.is_file()}
    except OSError as error:
        raise SettingsError(f"can't be read: {error.strerror}") from None


def has_encrypted_key(pem: Path) -> bool:
    """Look for a private key that wants a password; False also where the file can't be read."""
    try:
        with pem.open("rb") as opened:
            head = opened.read(_KEY_HEAD)
    except OSError:  # told when the client opens it
        return False
    return b"BEGIN ENCRYPTED PRIVATE KEY" in head or b"Proc-Type: 4,ENCRYPTED" in head
