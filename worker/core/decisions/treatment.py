"""What a worker does with a model's texts and probabilities, beside running it.

Owns: `Treatment`, which whoever loads a model passes on.
Thread: any; the values are frozen.
Must not import: kafka_io, inference.
"""

from __future__ import annotations

from dataclasses import dataclass

from worker.core.decisions.rules import Decision, decision
from worker.core.decisions.windows import WindowPlan, window_plan
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class Treatment:
    """The features of one model; each is None if it is off.

    Attributes:
        windows: how long texts are read; None truncates them.
        decision: what is made of the probabilities.
    """

    windows: WindowPlan | None = None
    decision: Decision | None = None


def treatment(settings: Settings) -> Treatment:
    """Return the treatment that the settings name for `[model]`."""
    return Treatment(window_plan(settings.input), decision(settings.decision))
