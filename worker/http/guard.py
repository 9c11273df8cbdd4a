"""Decides which requests are refused: foreign host names, pages of other sites, a missing token.

Owns: nothing; functions of a request's headers and the settings.
Thread: http, on the event loop.
Must not import: kafka, torch, worker.runtime.
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
# Platforms and scrapers reach a worker by its address and know no name for it.
_BY_ADDRESS: Final = (*PROBES, "/metrics")


class Guard:
    """Refuses requests as `http.host`, `http.allowed_hosts` and `http.token` demand."""

    def __init__(self, settings: HttpSettings) -> None:
        self._settings = settings
        self._token = settings.token.get_secret_value() if settings.token else ""

    def refusal(self, path: str, headers: Mapping[str, str]) -> tuple[int, str] | None:
        """Return the status and reason of a refusal, or None for a request that is allowed."""
        host, listening = headers.get("host", ""), self._settings.host
        if not (path in _BY_ADDRESS and is_address(host)) and is_foreign_host(
            host, listening, self._settings.allowed_hosts or ()
        ):
            return 403, (
                f"unknown host name: this worker answers to http.host = {listening}, to this "
                "machine's own names and to http.allowed_hosts"
            )
        if self._token and path not in PROBES and not has_token(headers, self._token):
            return 401, "send http.token as a bearer token, or as the password"
        return None


def is_foreign_host(host: str, listening: str, allowed: Collection[str] = ()) -> bool:
    """Return True if the request came in under a host name that this worker does not go by.

    A site whose own name resolves to 127.0.0.1 could otherwise read a page that is meant for this
    machine alone (DNS rebinding). A worker that listens on the network cannot know all its names,
    so there only `allowed` restricts them.

    Args:
        host: the request's Host header.
        listening: `http.host`.
        allowed: `http.allowed_hosts`.
    """
    name = _name(host)
    if name == listening.lower() or name in allowed or _is_loopback(name):
        return False
    return _is_loopback(listening) or (bool(allowed) and not _is_address(name))


def is_address(host: str) -> bool:
    """Return True for a Host header that is empty or an IP address: only a name can be foreign."""
    return not host or _is_address(_name(host))


def has_token(headers: Mapping[str, str], token: str) -> bool:
    """Return True if the request has the token, as a bearer token or as a basic-auth password."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "basic":
        credentials = _password(credentials)
    elif scheme.lower() != "bearer":
        return False
    return secrets.compare_digest(credentials.strip().encode(), token.encode())


def _password(credentials: str) -> str:
    try:
        return base64.b64decode(credentials, validate=True).decode().partition(":")[2]
    except ValueError:
        return ""


def is_foreign_site(headers: Mapping[str, str]) -> bool:
    """Return True if another site's page sent the request. Only browsers send these headers."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site != "same-origin"
    origin = headers.get("origin")
    return origin is not None and _split(origin).netloc != headers.get("host")


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError:  # an unbalanced bracket
        return urlsplit("")


def _name(host: str) -> str:
    return (_split(f"//{host}").hostname or "").lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    if name.lower() == "localhost" or name.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
