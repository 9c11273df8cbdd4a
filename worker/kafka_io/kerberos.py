"""Signs in by GSSAPI, with a Kerberos ticket.

The library does it, on a client's IO thread, with the ticket that is there. This module looks for
one first, as a client without a ticket would connect again and again.

Owns: nothing.
Thread: any; the Kerberos library may ask its server over the network.
Must not import: inference, runtime.
"""

from __future__ import annotations

from typing import Any

from worker.errors import AccessDenied, BrokerAway, SettingsError
from worker.settings import KafkaSettings

_HOW = (
    "run kinit, or set KRB5_CLIENT_KTNAME to the client's keytab, with which the Kerberos library "
    "gets and renews tickets itself"
)


def kerberos_options(kafka: KafkaSettings) -> dict[str, Any]:
    """Return the library's options for sign-in."""
    options = {
        "sasl_mechanism": "GSSAPI",
        "sasl_kerberos_service_name": kafka.sasl_kerberos_service_name,
    }
    if kafka.sasl_kerberos_domain_name:
        options["sasl_kerberos_domain_name"] = kafka.sasl_kerberos_domain_name
    return options


def require_ticket() -> None:
    """Return if there is a ticket, or a keytab that got one.

    Raises:
        SettingsError: the package or the system's Kerberos library is missing.
        AccessDenied: there is no valid ticket.
        BrokerAway: the Kerberos server does not answer; try again.
    """
    try:
        import gssapi  # noqa: PLC0415 - the extra `kerberos` brings it
    except (ImportError, OSError) as error:  # OSError: without the system's library
        raise SettingsError(
            "kafka.sasl_mechanism = 'GSSAPI' needs Kerberos (libgssapi_krb5) and the extra "
            f"`kerberos`: pip install 'streamlabel[kerberos]' ({error})"
        ) from error
    try:
        # Asking for the rest of its life makes the library look for a ticket, or get one.
        left = gssapi.Credentials(usage="initiate").lifetime
    except gssapi.exceptions.GSSError as error:
        if "contact any KDC" in str(error):
            raise BrokerAway(f"the Kerberos server does not answer ({error})") from error
        raise AccessDenied(f"there is no valid Kerberos ticket ({error}): {_HOW}") from error
    if left is not None and left <= 0:
        raise AccessDenied(f"the Kerberos ticket has expired: {_HOW}")
