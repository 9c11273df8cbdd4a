"""The names of a run's topics."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field


@dataclass(frozen=True)
class RunNames:
    """The topics and the group of one run."""

    group: str = field(default_factory=lambda: f"chaos-{uuid.uuid4().hex[:8]}")

    @property
    def input(self) -> str:
        return f"{self.group}.in"

    @property
    def output(self) -> str:
        return f"{self.group}.out"

    @property
    def dead(self) -> str:
        return f"{self.group}.dead"
