"""The files of TLS, looked at before a client is made.

Any thread may call it; it opens no connection. Imports no inference and no runtime.

The library loads them for each connection: what is wrong with them would be one failed connection
after another, and for an encrypted key OpenSSL would ask for its password on the terminal.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from worker.errors import SettingsError
from worker.settings import KafkaSettings


def check_files(kafka: KafkaSettings) -> None:
    """Return where certificates and key can be loaded and belong together.

    Raises:
        SettingsError: names the setting, the file and what is wrong with it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if kafka.ssl_cafile is not None:
        _load_authority(context, kafka.ssl_cafile)
    if kafka.ssl_certfile is not None:
        secret = kafka.ssl_key_password
        password = secret.get_secret_value() if secret else ""
        _load_pair(context, kafka.ssl_certfile, kafka.ssl_keyfile, password)


def _load_authority(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"kafka.ssl_cafile = {path}: no certificate in PEM format can be read from it "
            f"({_reason(error)}); it must begin with -----BEGIN CERTIFICATE-----"
        ) from error


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path | None, password: str) -> None:
    name = "kafka.ssl_keyfile" if key else "kafka.ssl_certfile"
    path, asked = key or certificate, False

    def given() -> str:
        nonlocal asked
        asked = True
        return password

    try:
        context.load_cert_chain(certificate, key, password=given)
    except (ssl.SSLError, OSError) as error:
        if asked and getattr(error, "reason", None) is None:
            does = "does not open it" if password else "is not set"
            raise SettingsError(
                f"{name} = {path}: the key is encrypted, and kafka.ssl_key_password {does}"
            ) from None
        raise SettingsError(_fault(error, certificate, name, path)) from error


def _fault(error: OSError, certificate: Path, name: str, path: Path) -> str:
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return (
            f"{name} = {path}: the key belongs to another certificate than "
            f"kafka.ssl_certfile = {certificate}"
        )
    return (
        f"kafka.ssl_certfile = {certificate}, {name} = {path}: no certificate and key in PEM "
        f"format can be read from there ({_reason(error)})"
    )


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)
