"""The topics of one worker, named in one place.

Owns: `WorkerTopics`, which `Settings.topics` returns.
Thread: any; the value is frozen.
Must not import: anything of worker.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class WorkerTopics:
    """The topics that a worker reads and writes; no two of them are the same."""

    inputs: tuple[str, ...]
    output: str
    dead_letters: str

    @property
    def outputs(self) -> tuple[str, str]:
        """The topics that the worker writes to."""
        return self.output, self.dead_letters

    @property
    def all(self) -> tuple[str, ...]:
        """Every topic: the inputs, then the output, then the dead letters."""
        return *self.inputs, *self.outputs
