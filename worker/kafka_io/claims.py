"""Reads tokens that are JSON Web Tokens (RFC 7519), without verifying them: a broker does that.

Owns: nothing.
Thread: any; pure functions.
Must not import: kafka, inference, runtime.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from typing import Any

from worker.core.visible import excerpt

_MAX_TOKEN = 65_536  # characters; a broker's largest request for a sign-in is far smaller
_MAX_CLAIM = 200  # characters that are shown


def fault_of(token: str) -> str | None:
    """Return why a text can't be sent as a bearer token, or None; RFC 6750, section 2.1."""
    if not token:
        return "is empty"
    if len(token) > _MAX_TOKEN:
        return f"has more than {_MAX_TOKEN} characters"
    if not token.isascii() or not token.isprintable() or " " in token:
        return "has characters that no token has, such as a space"
    return None


def claims_of(token: str) -> Mapping[str, Any]:
    """Return the claims of a JSON Web Token; none if it is another kind of token."""
    parts = token.split(".")
    if len(parts) != 3:
        return {}
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


def seconds(value: Any) -> float | None:
    """Return a number of seconds, which may be a string, or None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None


def in_words(token: str, now: float) -> str:
    """Return issuer, audience and remaining life of a token, for a message; none of it is secret.

    Args:
        token: of any kind.
        now: seconds since 1970-01-01 UTC.
    """
    claims = claims_of(token)
    if not claims:
        return "not a JSON Web Token"
    words = [
        f"{name} {excerpt(str(claims[name]), _MAX_CLAIM)!r}"
        for name in ("iss", "aud")
        if name in claims
    ]
    if (end := seconds(claims.get("exp"))) is not None:
        words.append(f"ends in {end - now:.0f} s" if end > now else f"ended {now - end:.0f} s ago")
    return ", ".join(words) or "no issuer, audience or end"
