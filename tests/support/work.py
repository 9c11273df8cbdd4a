"""The work of a step, counted and not timed."""

from __future__ import annotations

import sys
from collections.abc import Callable


def work(step: Callable[[], object]) -> int:
    """Return how many Python functions a step calls, a measure of its cost on any machine."""
    calls = 0

    def count(_: object, event: str, __: object) -> None:
        nonlocal calls
        calls += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        step()
    finally:
        sys.setprofile(before)
    return calls
