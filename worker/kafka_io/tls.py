"""TLS: what a client trusts and shows.

Owns: the context of a connection, made from the files.
Thread: any; opens no connection.
Must not import: inference, runtime.

Each connection gets a context of its own, so that a renewed file is used without a restart. One is
also made before the first connection: a fault in a file would show as one failed connection after
another, and OpenSSL would ask for an encrypted key's password on the terminal.

The library's own context can't load a list of revoked certificates, and ignores the ciphers.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from worker.errors import SettingsError
from worker.settings import KafkaSettings


def tls_context(kafka: KafkaSettings) -> ssl.SSLContext:
    """Return a context for one connection.

    Raises:
        SettingsError: names the setting, the file and the fault.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = kafka.ssl_check_hostname
    if kafka.ssl_cafile is not None:
        _load_authority(context, kafka.ssl_cafile)
    else:
        context.load_default_certs()
    if kafka.ssl_crlfile is not None:
        _load_revoked(context, kafka.ssl_crlfile)
    if kafka.ssl_certfile is not None:
        secret = kafka.ssl_key_password
        password = secret.get_secret_value() if secret else ""
        _load_pair(context, kafka.ssl_certfile, kafka.ssl_keyfile, password)
    if kafka.ssl_ciphers is not None:
        _choose_ciphers(context, kafka.ssl_ciphers)
    return context


def _choose_ciphers(context: ssl.SSLContext, ciphers: str) -> None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError:
        raise SettingsError(
            f"kafka.ssl_ciphers = {ciphers!r}: OpenSSL knows no such cipher; "
            "`openssl ciphers -tls1_2` lists them"
        ) from None


def _load_revoked(context: ssl.SSLContext, path: Path) -> None:
    try:
        context.load_verify_locations(path)
        fault = "no list of revoked certificates in it"
    except (ssl.SSLError, OSError) as error:
        fault = f"not a list of revoked certificates in PEM format ({_reason(error)})"
    if not context.cert_store_stats()["crl"]:
        raise SettingsError(
            f"kafka.ssl_crlfile = {path}: {fault}; it must begin with -----BEGIN X509 CRL-----"
        )
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF


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
