"""Explains why a connection failed, from the library's messages.

Owns: the patterns of those messages; the watcher of the library's log.
Thread: any.
Must not import: inference, runtime.

The library retries a first connection until its time is up and then says only "Unable to
bootstrap": a wrong password, an unknown certificate authority and a stopped broker look the same.
Its log and its inner exceptions have the reason, so both are searched for the same patterns.
`probe` explains the rest.
"""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

from worker.errors import AccessDenied, BrokerAway, Fatal, StreamlabelError


class Diagnosis(NamedTuple):
    """The cause of a failed connection.

    Attributes:
        error_type: `BrokerAway` is retried, the others stop the worker.
        advice: the cause and what to do, to follow "can't connect to Kafka at ...: ".
    """

    error_type: type[StreamlabelError]
    advice: str

    @property
    def permanent(self) -> bool:
        """True if another try would end the same way."""
        return self.error_type is not BrokerAway

    def error(self, servers: str) -> StreamlabelError:
        """Return the error to raise."""
        return self.error_type(f"can't connect to Kafka at {servers}: {self.advice}")


# The broker sent its version and then hung up, as it does when a client sends requests without a
# login. A broker that shuts down looks the same, and the lines may come from another client: if the
# same settings worked before, this is no sign of a refusal.
HANGS_UP = r"broker_version=\(.*socket disconnected"

# A pattern of the library's messages -> its diagnosis, the most specific first.
_DIAGNOSES: dict[str, Diagnosis] = {
    "SaslAuthenticationFailed": Diagnosis(
        AccessDenied,
        "the broker refuses the credentials: check kafka.sasl_username and kafka.sasl_password",
    ),
    "UnsupportedSaslMechanism": Diagnosis(
        AccessDenied, "the broker does not support this SASL mechanism: check kafka.sasl_mechanism"
    ),
    "IllegalSaslState": Diagnosis(
        AccessDenied, "this port does not accept SASL: check the port and kafka.security_protocol"
    ),
    "certificate is not valid for": Diagnosis(
        Fatal,
        "the broker's certificate is for another host name: use that name in "
        "kafka.bootstrap_servers",
    ),
    "certificate has expired": Diagnosis(
        Fatal,
        "the broker's certificate has expired: renew it, or check this machine's clock",
    ),
    "certificate is not yet valid": Diagnosis(
        Fatal,
        "the broker's certificate is not valid yet: check this machine's clock and the "
        "certificate's dates",
    ),
    "certificate revoked": Diagnosis(
        Fatal,
        "the broker's certificate is revoked, says kafka.ssl_crlfile: renew the certificate",
    ),
    "CRL has expired": Diagnosis(
        Fatal, "kafka.ssl_crlfile has expired: replace it by the authority's current list"
    ),
    "unable to get certificate CRL": Diagnosis(
        Fatal, "kafka.ssl_crlfile is another authority's, not that of the broker's certificate"
    ),
    "CERTIFICATE_VERIFY_FAILED": Diagnosis(
        Fatal,
        "the broker's certificate is not signed by a known authority: set kafka.ssl_cafile",
    ),
    r"ALERT_(CERTIFICATE|BAD_CERTIFICATE|UNKNOWN_CA)": Diagnosis(
        Fatal,
        "the broker requires a client certificate, or refuses this one: set kafka.ssl_certfile and "
        "kafka.ssl_keyfile to a pair that its authority has signed",
    ),
    HANGS_UP: Diagnosis(
        AccessDenied,
        "the broker closes the connection instead of accepting a login: check the kafka.sasl_ "
        "settings and kafka.security_protocol",
    ),
    r"\[SSL": Diagnosis(
        BrokerAway,
        "the TLS handshake failed: check the port, kafka.security_protocol and, if the broker "
        "requires a client certificate, kafka.ssl_certfile",
    ),
    "not found in Kerberos database": Diagnosis(
        AccessDenied,
        "the Kerberos server does not know this broker: check kafka.sasl_kerberos_service_name and "
        "kafka.sasl_kerberos_domain_name",
    ),
    r"CONNECT to proxy failed|Proxy (closed|request failed)|S(ocks5|OCKS) (proxy|auth)": Diagnosis(
        BrokerAway, "the proxy refuses: check kafka.proxy_url and the proxy's own log"
    ),
    "DNS": Diagnosis(BrokerAway, "the host name can't be resolved"),
    "ECONNREFUSED": Diagnosis(
        BrokerAway, "nothing listens there: check that the broker is up and the port is right"
    ),
    "timed out": Diagnosis(BrokerAway, "no response: check for a firewall in between"),
    "socket disconnected": Diagnosis(
        BrokerAway,
        "the broker closes the connection at once: it may be shutting down, or this port may require "
        "TLS (check kafka.security_protocol)",
    ),
}

# Lines that only say that something failed; the reason is in another line.
_GENERIC = re.compile(
    r"Unable to bootstrap|Bootstrap failed|[Bb]ootstrap.*not ready|No node(_id)? |NodeNotReady"
)


def permanent_failure(message: str) -> Diagnosis | None:
    """Return the diagnosis of a message if another try could only do harm."""
    for pattern, diagnosis in _DIAGNOSES.items():
        if re.search(pattern, message):
            return diagnosis if diagnosis.permanent and pattern != HANGS_UP else None
    return None


class ClientLogWatcher(logging.Handler):
    """Remembers which patterns matched the library's log, and its last line.

    It keeps patterns rather than lines, as a failing client logs some lines thousands of times. The
    library's warnings contain no message of a topic.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.reset(connected_before=False)

    def reset(self, *, connected_before: bool) -> None:
        """Forget everything, for a new client.

        Args:
            connected_before: whether a client with the same settings has connected before.
        """
        self._connected_before = connected_before
        self._matches: set[str] = set()
        self.last_line = "no response"

    def emit(self, record: logging.LogRecord) -> None:
        """Search a line of the library's log."""
        line = record.getMessage()
        if not _GENERIC.search(line):
            self.last_line = line
        self._matches.update(pattern for pattern in _DIAGNOSES if re.search(pattern, line))

    def diagnosis(self) -> Diagnosis:
        """Return the most specific diagnosis, else the last line of the log."""
        for pattern, diagnosis in _DIAGNOSES.items():
            if pattern in self._matches and not (pattern == HANGS_UP and self._connected_before):
                return diagnosis
        return Diagnosis(BrokerAway, self.last_line)


client_log = ClientLogWatcher()
