"""Checks the TLS files before a client is made.

Owns: nothing.
Thread: any; opens no connection.
Must not import: inference, runtime.

The library loads the files for each connection: a fault in them would show as one failed connection
after another, and OpenSSL would ask for an encrypted key's password on the terminal.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from worker.errors import SettingsError
from worker.settings import KafkaSettings


def check_files(kafka: KafkaSettings) -> None:
    """Return if certificates and key can be loaded and belong together.

    Raises:
        SettingsError: names the setting, the file and the fault.
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
            f"kafka.ssl_cafile = {path}: not a certificate in PEM format "
            f"({_reason(error)}); it must begin with -----BEGIN CERTIFICATE-----"
        ) from error


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path | None, password: str) -> None:
    name = "kafka.ssl_keyfile" if key else "kafka.ssl_certfile"
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
                f"{name} = {path}: the key is encrypted, and kafka.ssl_key_password {fault}"
            ) from None
        raise SettingsError(_fault(error, certificate, name, path)) from error


def _fault(error: OSError, certificate: Path, name: str, path: Path) -> str:
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
        return (
            f"{name} = {path}: the key does not belong to the certificate "
            f"kafka.ssl_certfile = {certificate}"
        )
    return (
        f"kafka.ssl_certfile = {certificate}, {name} = {path}: not a certificate and key in PEM "
        f"format ({_reason(error)})"
    )


def _reason(error: OSError) -> str:
    return str(getattr(error, "reason", None) or error.strerror or error)
