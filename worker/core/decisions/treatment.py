"""The features of one model: how its texts are read, and what becomes of its probabilities.

Owns: `Treatment`, which each loader of a model is given.
Thread: any; the values are frozen.
Must not import: kafka_io, inference.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from worker.core.decisions.rules import Decision, decision
from worker.core.decisions.windows import WindowPlan, window_plan
from worker.settings import PrepareSettings, Settings


@dataclass(frozen=True, slots=True)
class Treatment:
    """The features of one model; one that is off is None, or has its default options.

    Attributes:
        windows: how long texts are read; None truncates them.
        decision: what is made of the probabilities.
        prepare: the preparation of its texts.
    """

    windows: WindowPlan | None = None
    decision: Decision | None = None
    prepare: PrepareSettings = field(default_factory=PrepareSettings)


def treatment(settings: Settings) -> Treatment:
    """Return the treatment that the settings name for `[model]`."""
    return Treatment(window_plan(settings.input), decision(settings.decision), settings.prepare)
