"""The verdict on a run: what the audit and the harness counted, and whether promises held."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass
class RunVerdict:
    """The result of a run, printed as one JSON object.

    Attributes:
        faults: number of faults that began, by kind, and `skipped` of those that never could.
        failure: the end of a fault that never succeeded, or of a watch that came too early, so
            that there is too little to judge.
        undue_dead_letters: dead letters, less the records that can't be labelled.
        misread: results that can't be read, or that name another record than their header.
        models: number of models that results name; several after a change.
        requests: those that a fault inside the protocol happened to, by fault and API.
        filtered: records that a route dropped, and `copies` those that one copied.
        undue_filtered: filtered records, less those that the route is for.
        lives: of the input's log, if it could end; then numbers name the records, not offsets.
        required: records that must have an outcome, in a run with lives.
        lost: records without an outcome that the log lost before the group had read them.
        uncopied: copies that a result announces and that are missing.
        prefixes: how often each promise of exactly once was checked under way, and `torn` how often
            it was broken.
    """

    seed: int
    faults: dict[str, int]
    skipped: dict[str, int] = field(default_factory=dict)
    failure: str = ""
    consumed: int = 0
    published: int = 0
    dead_lettered: int = 0
    missing: int = 0
    duplicated: int = 0
    duplicates_allowed: int = 0
    reordered: int = 0
    orphans: int = 0
    filtered: int = 0
    copies: int = 0
    uncopied: int = 0
    undue_filtered: int = 0
    undue_dead_letters: int = 0
    misread: int = 0
    models: int = 0
    lives: int = 0
    required: int = 0
    lost: int = 0
    longest_stall_s: float = 0.0
    producers_replaced: int = 0
    exit_codes: dict[str, int] = field(default_factory=dict)
    requests: dict[str, int] = field(default_factory=dict)
    prefixes: dict[str, int] = field(default_factory=dict)
    torn: dict[str, int] = field(default_factory=dict)
    delivery: str = ""
    format: str = ""
    drained: bool = False
    seconds: float = 0.0
    logs: str = ""

    @property
    def holds(self) -> bool:
        """True if the promise of this delivery mode was kept."""
        offences = self.missing + self.reordered + self.orphans + self.misread + self.uncopied
        offences += abs(self.undue_dead_letters) + abs(self.undue_filtered)
        offences += sum(self.torn.values())
        excess = max(0, self.duplicated - self.duplicates_allowed)
        tried = not self.failure and bool(self.faults or not self.skipped)
        judged = self.drained and self.consumed > 0 and (self.required > 0 or not self.lives)
        return tried and judged and not offences and not excess

    def as_json(self) -> str:
        """Return the verdict as JSON; the folder of the logs only if a promise was broken."""
        facts = {"holds": self.holds} | asdict(self)
        if self.holds:
            del facts["logs"]
        return json.dumps(facts)
