"""Who may ask for the page: no other site in the reader's browser, and none under a foreign name.

Pure functions of a request's headers, called on the HTTP thread's loop. Imports nothing of ours.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import SplitResult, urlsplit


def foreign_name(host: str, listening: str) -> bool:
    """Whether a browser was led here by a name that somebody else gives to this machine.

    A site that lets its own name point to 127.0.0.1 could read what is meant for this machine alone.
    Where the worker listens to the network, it has names that it does not know.

    Args:
        host: the request's Host header.
        listening: `http.host`.
    """
    name = _split(f"//{host}").hostname or ""
    if not _loopback(listening) or name == listening.lower():
        return False
    return not _loopback(name)


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


def _loopback(name: str) -> bool:
    if name.lower() == "localhost" or name.lower().endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
