"""Loads the TLS files of a section of settings, and names what is wrong with one.

The files are loaded before the first connection: a fault in one would show as one failed connection
after another, and OpenSSL would ask for an encrypted key's password on the terminal.

Owns: nothing.
Thread: any; opens no connection.
Must not import: anything of worker but errors and settings.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from worker.errors import SettingsError
from worker.settings import current


class TlsFiles(Protocol):
    """A section with the settings of a client certificate and of the authority to trust."""

    @property
    def ssl_cafile(self) -> Path | None: ...
    @property
    def ssl_certfile(self) -> Path | None: ...
    @property
    def ssl_keyfile(self) -> Path | None: ...
    @property
    def ssl_key_password(self) -> SecretStr | None: ...


def load_files(context: ssl.SSLContext, files: TlsFiles, section: str) -> None:
    """Load the files that are set.

    Args:
        context: receives them.
        files: the settings.
        section: their name, for messages: `kafka`.

    Raises:
        SettingsError: names the setting, the file and the fault.
    """
    if files.ssl_cafile is not None:
        _load_authority(context, files.ssl_cafile, section)
    if files.ssl_certfile is not None:
        secret = files.ssl_key_password
        password = current(secret) if secret else ""
        _load_pair(context, files.ssl_certfile, files.ssl_keyfile, password, section)


def _load_authority(context: ssl.SSLContext, path: Path, section: str) -> None:
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"{section}.ssl_cafile = {path}: not a certificate in PEM format "
            f"({reason_of(error)}); it must begin with -----BEGIN CERTIFICATE-----"
        ) from error


def _load_pair(
    context: ssl.SSLContext, certificate: Path, key: Path | None, password: str, section: str
) -> None:
    name = f"{section}.ssl_keyfile" if key else f"{section}.ssl_certfile"
    path, encrypted = key or certificate, False

    def provide_password() -> str:
        nonlocal encrypted
        encrypted = True
        return password

    try:
        context.load_cert_chain(certificate, key, password=provide_password)
    except (ssl.SSLError, OSError) as error:
        if encrypted and getattr(error, "reason", None) is None:
            fault = "does not decrypt it" if password else "is not set"
            raise SettingsError(
                f"{name} = {path}: the key is encrypted, and {section}.ssl_key_password {fault}"
            ) from None
        own = f"{section}.ssl_certfile = {certificate}"
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            fault = f"{name} = {path}: the key does not belong to the certificate {own}"
        else:
            fault = f"{own}, {name} = {path}: not a certificate and key in PEM format"
            fault += f" ({reason_of(error)})"
        raise SettingsError(fault) from error


def reason_of(error: OSError) -> str:
    """Return OpenSSL's name of a fault, else that of the operating system."""
    return str(getattr(error, "reason", None) or error.strerror or error)
