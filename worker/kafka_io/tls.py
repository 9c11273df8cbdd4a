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
        _load_pair(context, kafka.ssl_certfile, kafka)


def _load_authority(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"kafka.ssl_cafile = {path}: no certificate in PEM format can be read from it "
            f"({_reason(error)}); it must begin with -----BEGIN CERTIFICATE-----"
        ) from error


def _load_pair(context: ssl.SSLContext, certificate: Path, kafka: KafkaSettings) -> None:
    name = "kafka.ssl_keyfile" if kafka.ssl_keyfile else "kafka.ssl_certfile"
    path, secret = kafka.ssl_keyfile or certificate, kafka.ssl_key_password
    encrypted = False

    def password() -> str:  # without one, OpenSSL would ask for it on the terminal
        nonlocal encrypted
        encrypted = True
        return secret.get_secret_value() if secret else ""

    try:
        context.load_cert_chain(certificate, kafka.ssl_keyfile, password)
    except (ssl.SSLError, OSError) as error:
        if encrypted and getattr(error, "reason", None) is None:
            raise SettingsError(
                f"{name} = {path}: the key is encrypted, and kafka.ssl_key_password does not open it"
            ) from error
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
