"""How the demo ended: what the audit proved and what was measured.

Owns: the verdict, and how it is written for people and for programs. Pure. Runs on: the demo's
main thread. Must not import: kafka, torch.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from worker.demo.tally import Tally
from worker.demo.view import duration

_PROVED = ("consumed", "published", "dead_lettered", "missing", "duplicated", "reordered")


@dataclass(frozen=True)
class Summary:
    """The end of one demo.

    Attributes:
        audit: the object that `streamlabel audit --json` printed.
        tally: what the demo itself saw.
        surprises: outcomes that differ from what the sample expects.
        extra: what else goes into the JSON object.
    """

    audit: Mapping[str, Any]
    tally: Tally
    surprises: tuple[str, ...]
    extra: Mapping[str, Any]

    @property
    def good(self) -> bool:
        """Every promise held, all records were seen, the dead letters are the broken records."""
        everything = self.audit["consumed"] == self.tally.total
        return bool(self.audit["holds"]) and everything and not self.surprises

    def as_json(self) -> str:
        """One line for programs."""
        agreed, clear = self.tally.agreement()
        agreed_unseen, unseen = self.tally.agreement(unseen=True)
        document = {name: self.audit[name] for name in _PROVED} | {
            "texts_per_second": round(self.tally.texts_per_second(), 1),
            "p50_ms": self.tally.latency_ms(0.5),
            "p99_ms": self.tally.latency_ms(0.99),
            "agreement": round(agreed / clear, 4) if clear else None,
            "reasons": dict(self.audit["reasons"]),
            "holds": self.good,
            "clear_posts": clear,
            "agreement_unseen": round(agreed_unseen / unseen, 4) if unseen else None,
            "clear_posts_unseen": unseen,
            "seconds": round(self.tally.seconds, 3),
            "surprises": list(self.surprises),
        }
        return json.dumps(document | dict(self.extra))

    def for_people(self) -> RenderableType:
        """A few lines for a terminal."""
        grid = Table.grid(padding=(0, 2))
        for name, value in self._rows():
            grid.add_row(Text(name, style="grey62"), value)
        return Group(Text(), grid, Text(), self._verdict())

    def _rows(self) -> list[tuple[str, Text]]:
        audit, tally = self.audit, self.tally
        agreed, clear = tally.agreement()
        reasons = ", ".join(f"{name} {number}" for name, number in sorted(audit["reasons"].items()))
        latency = [tally.latency_ms(share) for share in (0.5, 0.99)]
        half, most = (duration(ms) if ms is not None else "-" for ms in latency)
        faults = ("missing", "duplicated", "reordered")
        rows = [
            ("in", f"{audit['consumed']:,} records"),
            ("out", f"{audit['published']:,} labelled"),
            ("dead letters", f"{audit['dead_lettered']:,}: {reasons}"),
            ("audit", ", ".join(f"{audit[name]} {name}" for name in faults)),
            ("speed", f"{tally.texts_per_second():,.0f} texts/s"),
            ("end to end", f"p50 {half}, p99 {most}"),
        ]
        if clear:
            told = f"{agreed / clear:.1%} of {clear:,} posts that people found clearly good or bad"
            rows.append(("agrees with people on", told))
        agreed, unseen = tally.agreement(unseen=True)
        if unseen:
            told = f"{agreed / unseen:.1%} of the {unseen:,} that were left out of its training"
            rows.append(("", told))
        return [(name, Text(value, style="bold")) for name, value in rows]

    def _verdict(self) -> Text:
        if self.good:
            words = "Every promise held; the dead letters are exactly the broken records."
            return Text(words, style="bold #4fc38a")
        told = Text("A promise was broken:", style="bold #ee7a5e")
        for fault in self._faults():
            told.append(f"\n  {fault}")
        return told

    def _faults(self) -> list[str]:
        faults = [f"{words} ({n} times)" for words, n in Counter(self.surprises).items()]
        if not self.audit["holds"]:
            faults.append("the audit found: " + ", ".join(self.audit.get("broken", ())))
        if self.audit["consumed"] != self.tally.total:
            faults.append(f"{self.tally.total} records were sent, see `in` above")
        return faults
