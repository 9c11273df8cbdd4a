"""Who may ask: no other site in the reader's browser, none under a foreign name, none without a token.

Pure functions of a request's headers and the settings, called on the HTTP thread's loop. Imports the
ground floor.
"""

from __future__ import annotations

import base64
import ipaddress
import secrets
from collections.abc import Collection, Mapping
from typing import Final
from urllib.parse import SplitResult, urlsplit

from worker.settings import HttpSettings

PROBES: Final = ("/livez", "/readyz")
_BY_ADDRESS: Final = (*PROBES, "/metrics")  # platforms and scrapers know no name


class Guard:
    """Refuses by the settings."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._token = settings.token.get_secret_value() if settings.token else ""

    def refusal(self, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Status and words for what may not be asked; None where it may."""
        host, listening = headers.get("host", ""), self._settings.host
        if not (path in _BY_ADDRESS and by_address(host)) and foreign_name(
            host, listening, self._settings.allowed_hosts or ()
        ):
            return 403, (
                f"this worker answers to http.host = {listening}, to this machine's names and to "
                "http.allowed_hosts"
            )
        if self._token and path not in PROBES and not bears(headers, self._token):
            return 401, "give http.token as a bearer token, or as the password"
        return None


def foreign_name(host: str, listening: str, allowed: Collection[str] = ()) -> bool:
    """Whether a browser was led here by a name that somebody else gives to this machine.

    A site that lets its own name point to 127.0.0.1 could read what is meant for this machine alone.
    Where the worker listens to the network, it has names that it knows only if they are listed.

    Args:
        host: the request's Host header.
        listening: `http.host`.
        allowed: `http.allowed_hosts`.
    """
    name = _name(host)
    if name == listening.lower() or name in allowed or _loopback(name):
        return False
    return _loopback(listening) or (bool(allowed) and not _address(name))


def by_address(host: str) -> bool:
    """Whether a Host header holds no name, which alone could point elsewhere: an address, or nothing."""
    return not host or _address(_name(host))


def bears(headers: Mapping[str, str], token: str) -> bool:
    """Whether a request has the token: as a bearer's, or as the password that a browser asked for."""
    scheme, _, given = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        given = _password(given)
    elif scheme.lower() != "bearer":
        return False
    return secrets.compare_digest(given.strip().encode(), token.encode())


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def foreign_site(headers: Mapping[str, str]) -> bool:
    """Whether another site's page sends this. What is no browser says nothing of sites."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    origin = headers.get("origin")
    return origin is not None and _split(origin).netloc != headers.get("host")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # a bracket too many
        return urlsplit("")


def _name(host: str) -> str:
    return (_split(f"//{host}").hostname or "").lower()


def _address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _loopback(name: str) -> bool:
    if name.lower() == "localhost" or name.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
