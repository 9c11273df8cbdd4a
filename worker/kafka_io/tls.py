"""TLS: what a client trusts and shows.

Owns: the context of a connection, made from the files.
Thread: any; opens no connection.
Must not import: inference, runtime.

Each connection gets a context of its own, so that a renewed file is used without a restart. One is
also made before the first connection, to name a fault.

The library's own context can't load a list of revoked certificates, and ignores the ciphers.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from worker.errors import SettingsError
from worker.settings import KafkaSettings
from worker.tls import load_files, reason_of


def tls_context(kafka: KafkaSettings) -> ssl.SSLContext:
    """Return a context for one connection.

    Raises:
        SettingsError: names the setting, the file and the fault.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = kafka.ssl_check_hostname
    if kafka.ssl_cafile is None:
        context.load_default_certs()
    load_files(context, kafka, "kafka")
    if kafka.ssl_crlfile is not None:
        _load_revoked(context, kafka.ssl_crlfile)
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
        fault = f"not a list of revoked certificates in PEM format ({reason_of(error)})"
    if not context.cert_store_stats()["crl"]:
        raise SettingsError(
            f"kafka.ssl_crlfile = {path}: {fault}; it must begin with -----BEGIN X509 CRL-----"
        )
    context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
