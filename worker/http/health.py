"""Who answers /livez and /readyz: one worker (`Progress`), or a pool of them. Any thread may ask."""

from __future__ import annotations

from typing import Protocol

Verdict = tuple[bool, str]  # green or red, and in words


class Health(Protocol):
    """What is asked by a platform that restarts and routes by the answers."""

    def live(self) -> Verdict:
        """Whether a restart would not help."""
        ...

    def ready(self) -> Verdict:
        """Whether records are taken."""
        ...
