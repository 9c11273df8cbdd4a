"""Why a client does not get in: signs in what it complains of, and what to do about each.

Any thread may call it. Imports no inference and no runtime.

The library retries a first connection without end and then says only "Unable to bootstrap": a
wrong password, an unknown authority and a switched-off broker look the same. The reason stands in
its log and in the exceptions that it keeps to itself, so both are searched for the same signs.
`probe` finds out about the rest.
"""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

from worker.errors import AccessDenied, BrokerAway, Fatal, StreamlabelError


class Verdict(NamedTuple):
    """Why a client does not get in.

    Attributes:
        meaning: what the worker does about it: `BrokerAway` is waited out, the others stop it.
        words: the cause and what to do, to be put behind "can't connect to Kafka at ...: ".
    """

    meaning: type[StreamlabelError]
    words: str

    @property
    def certain(self) -> bool:
        """True if another try would end the same way."""
        return self.meaning is not BrokerAway

    def error(self, servers: str) -> StreamlabelError:
        """The error to raise."""
        return self.meaning(f"can't connect to Kafka at {servers}: {self.words}")


# The broker told its version and then hung up, as it does with a client that sends requests where
# it should log in. A broker that goes down looks like it too, and the lines may be those of a
# client beside this one: where the same settings were good enough before, it is no sign of a
# refusal.
HANGS_UP = r"broker_version=\(.*socket disconnected"

# A pattern of the library's words -> their meaning, the surest sign first.
_SIGNS: dict[str, Verdict] = {
    "SaslAuthenticationFailed": Verdict(
        AccessDenied,
        "it refuses the credentials: check kafka.sasl_username and kafka.sasl_password",
    ),
    "UnsupportedSaslMechanism": Verdict(
        AccessDenied, "it does not take this way to log in: check kafka.sasl_mechanism"
    ),
    "IllegalSaslState": Verdict(
        AccessDenied, "this port takes no SASL: check the port and kafka.security_protocol"
    ),
    "certificate is not valid for": Verdict(
        Fatal,
        "its certificate is for another host name: use that name in kafka.bootstrap_servers",
    ),
    "certificate has expired": Verdict(
        Fatal, "its certificate has expired: renew it on the broker, or check this machine's clock"
    ),
    "certificate is not yet valid": Verdict(
        Fatal,
        "its certificate is not valid yet: check this machine's clock and the certificate's dates",
    ),
    "CERTIFICATE_VERIFY_FAILED": Verdict(
        Fatal,
        "its certificate is not signed by an authority that is known here: set kafka.ssl_cafile",
    ),
    r"ALERT_(CERTIFICATE|BAD_CERTIFICATE|UNKNOWN_CA)": Verdict(
        Fatal,
        "it refuses this client's certificate, or the lack of one: set kafka.ssl_certfile and "
        "kafka.ssl_keyfile to a pair that its authority has signed",
    ),
    HANGS_UP: Verdict(
        AccessDenied,
        "it hangs up instead of letting this client in: check kafka.sasl_username, "
        "kafka.sasl_password, kafka.sasl_mechanism and kafka.security_protocol",
    ),
    r"\[SSL": Verdict(
        BrokerAway,
        "the TLS handshake failed: check the port, kafka.security_protocol and, where the broker "
        "wants a client certificate, kafka.ssl_certfile",
    ),
    "DNS": Verdict(BrokerAway, "its host name can't be resolved"),
    "ECONNREFUSED": Verdict(
        BrokerAway, "nothing listens there: is the broker up, is the port right?"
    ),
    "timed out": Verdict(BrokerAway, "nothing answers there: is a firewall in the way?"),
    "socket disconnected": Verdict(
        BrokerAway,
        "it hangs up at once: is it going down, or does this port want TLS (check "
        "kafka.security_protocol)?",
    ),
}

# Lines that only say that something failed; the reason stands in another one.
_GENERIC = re.compile(
    r"Unable to bootstrap|Bootstrap failed|[Bb]ootstrap.*not ready|No node(_id)? |NodeNotReady"
)


def refusal(complaint: str) -> Verdict | None:
    """The verdict of a complaint after which another try would only do harm, else None."""
    for sign, verdict in _SIGNS.items():
        if re.search(sign, complaint):
            return verdict if verdict.certain and sign != HANGS_UP else None
    return None


class ClientLogWatcher(logging.Handler):
    """Remembers which signs the library's complaints held, and the last one; no record is in them.

    A set of signs, not the lines: a client that fails logs some of them thousands of times.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.begin(let_in=False)

    def begin(self, *, let_in: bool) -> None:
        """Forget everything, for a client whose like was let in before, or was not."""
        self.let_in = let_in
        self.signs: set[str] = set()
        self.last = "nothing answers"

    def emit(self, record: logging.LogRecord) -> None:
        """Take note of a line of the library's log."""
        line = record.getMessage()
        if not _GENERIC.search(line):
            self.last = line
        self.signs.update(sign for sign in _SIGNS if re.search(sign, line))

    def verdict(self) -> Verdict | None:
        """The surest sign's meaning, if there was a sign."""
        for sign, verdict in _SIGNS.items():
            if sign in self.signs and not (sign == HANGS_UP and self.let_in):
                return verdict
        return None


witness = ClientLogWatcher()
