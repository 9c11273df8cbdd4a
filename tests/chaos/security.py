"""Certificates and passwords of a cluster whose workers sign in by SCRAM over TLS.

Owns: the files that workers read, and those that brokers do.
Thread: the harness's.

Every broker has the same pair. Its authority and the password are replaced as a fault: a new one is
made first, and then comes into force at the brokers and in the workers' files, in either order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from tests.support.authority import Authority

USER: Final = "worker"

_MODULE: Final = "org.apache.kafka.common.security.scram.ScramLoginModule required;"


class Security:
    """The secrets of a run's cluster.

    Args:
        folder: takes all files.
        doors: names of the brokers' listeners for workers.

    Attributes:
        password: the newest one.
    """

    def __init__(self, folder: Path, doors: Iterable[str]) -> None:
        self._folder, self._doors = folder, [door.lower() for door in doors]
        self._made = 0
        self._trusted = folder / "authorities.pem"
        self._password = folder / "password"
        self.make_password()
        self.write_password()
        self.make_pair()
        self.trust(old=False)

    def make_password(self) -> None:
        """Make another password."""
        self._made += 1
        self.password = f"secret-{self._made}"

    def write_password(self) -> None:
        """Give workers the newest password."""
        _replace(self._password, self.password.encode())

    def make_pair(self) -> None:
        """Make a certificate of a new authority."""
        self._made += 1
        place = self._folder / str(self._made)
        place.mkdir()
        # OpenSSL tries one authority of a name: a successor needs a name of its own.
        authority = Authority(place, f"authority-{self._made}")
        self._authority = authority.file.read_bytes()
        self._pair = authority.pair("broker")[0]

    def trust(self, *, old: bool) -> None:
        """Let workers trust the newest authority, and the `old` ones or not."""
        before = self._trusted.read_bytes() if old else b""
        _replace(self._trusted, before + self._authority)

    @property
    def keystores(self) -> dict[str, str]:
        """The brokers' properties with the newest pair, which may change while they run."""
        prefixes = [f"listener.name.{door}." for door in self._doors]
        return {f"{prefix}ssl.keystore.location": str(self._pair) for prefix in prefixes}

    @property
    def properties(self) -> dict[str, str]:
        """The brokers' properties."""
        protocols = {"PLAINTEXT": "PLAINTEXT", "CONTROLLER": "PLAINTEXT"}
        protocols |= dict.fromkeys(map(str.upper, self._doors), "SASL_SSL")
        prefixes = [f"listener.name.{door}." for door in self._doors]
        return {
            "listener.security.protocol.map": ",".join(map(":".join, protocols.items())),
            "sasl.enabled.mechanisms": "SCRAM-SHA-512",
            **{f"{prefix}scram-sha-512.sasl.jaas.config": _MODULE for prefix in prefixes},
            **{f"{prefix}ssl.keystore.type": "PEM" for prefix in prefixes},
            **self.keystores,
        }

    @property
    def flags(self) -> Mapping[str, Any]:
        """The workers' settings, by path."""
        return {
            "kafka.security_protocol": "SASL_SSL",
            "kafka.sasl_mechanism": "SCRAM-SHA-512",
            "kafka.sasl_username": USER,
            "kafka.sasl_password": {"secret_file": str(self._password)},
            "kafka.ssl_cafile": str(self._trusted),
        }


def _replace(file: Path, content: bytes) -> None:
    """Replace a file at one moment, as Kubernetes does."""
    new = file.with_name(f"{file.name}.new")
    new.write_bytes(content)
    new.replace(file)
