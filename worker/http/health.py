"""Declares what /livez and /readyz ask: one worker (`Progress`), or a pool of them.

Owns: nothing.
Thread: any; every implementation can be asked from every thread.
Must not import: any other module of the worker.
"""

from __future__ import annotations

from typing import Protocol

Verdict = tuple[bool, str]  # healthy or not, and a short explanation


class Health(Protocol):
    """Health as platforms see it: they restart by `live` and route by `ready`."""

    def live(self) -> Verdict:
        """Return False only if a restart would help."""
        ...

    def ready(self) -> Verdict:
        """Return True while the worker takes records."""
        ...
