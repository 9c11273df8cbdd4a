"""Files with settings: the TOML file, and files that hold one secret each.

Owns: reading them, and naming what is wrong with one. Content, which may be secret, is never shown.
Thread: main, before any other starts.
Must not import: anything of worker but `errors`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from worker.errors import SettingsError

_LARGEST_SECRET: Final = 65_536  # bytes; a private key has a few thousand
_KEY_HEAD: Final = 65_536  # bytes; certificates may precede a key


def read_toml(config: Path) -> dict[str, Any]:
    """Return the tables of a TOML file, with or without a byte order mark.

    Raises:
        SettingsError: the file can't be read, or is not TOML.
    """
    try:
        return tomllib.loads(config.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        why = f"not UTF-8 (byte {error.start})"
    except RecursionError:
        why = "its tables or lists are nested too deeply"
    except OSError as error:
        why = error.strerror or type(error).__name__
    except tomllib.TOMLDecodeError as error:
        why = str(error)
    raise SettingsError(f"can't read the settings file {config}: {why}")


def read_secret(file: Path) -> str:
    """Return a secret without the final line break that editors and `echo` leave.

    Raises:
        SettingsError: the file can't be read, is too large, or is not UTF-8.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(_LARGEST_SECRET + 1)
        if len(content) > _LARGEST_SECRET:
            raise SettingsError(f"{file} is larger than {_LARGEST_SECRET} bytes")
        return content.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SettingsError(f"{file} is not UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{file} can't be read: {error.strerror}") from None


def files_in(folder: Path) -> dict[str, Path]:
    """Return the files of a directory, by their names in lower case.

    Raises:
        SettingsError: the directory can't be read.
    """
    try:
        return {file.name.lower(): file for file in folder.iterdir() if file.is_file()}
    except OSError as error:
        raise SettingsError(f"can't be read: {error.strerror}") from None


def has_encrypted_key(pem: Path) -> bool:
    """Return True if the file has a private key that needs a password."""
    try:
        with pem.open("rb") as opened:
            head = opened.read(_KEY_HEAD)
    except OSError:  # reported when the client opens it
        return False
    return b"BEGIN ENCRYPTED PRIVATE KEY" in head or b"Proc-Type: 4,ENCRYPTED" in head
