"""The demo's report: the audit's verdict and the measured figures.

Owns: the report as text for a terminal, as JSON and as a screenshot, and the commands to try next.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from worker.demo.tally import Tally
from worker.demo.view import WIDTH, duration, frame

_AUDITED = ("consumed", "published", "dead_lettered", "missing", "duplicated", "reordered")


@dataclass(frozen=True)
class Summary:
    """The result of one demo.

    Attributes:
        audit: the object that `streamlabel audit --json` printed.
        tally: the demo's own counts.
        surprises: descriptions of unexpected outcomes.
        rate: records a second that the demo sent; 0 is as fast as possible.
        extra: further members of the JSON object.
    """

    audit: Mapping[str, Any]
    tally: Tally
    surprises: tuple[str, ...]
    rate: float
    extra: Mapping[str, Any]

    @property
    def good(self) -> bool:
        """True if the audit passed, saw every record, and every outcome is the expected one."""
        complete = self.audit["consumed"] == self.tally.total
        return bool(self.audit["holds"]) and complete and not self.surprises

    def as_json(self) -> str:
        """Return the report as one line of JSON."""
        agreed, clear = self.tally.agreement()
        agreed_unseen, unseen = self.tally.agreement(unseen=True)
        document = {name: self.audit[name] for name in _AUDITED} | {
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
            "rate": self.rate,
            "surprises": list(self.surprises),
        }
        return json.dumps(document | dict(self.extra))

    def as_text(self) -> RenderableType:
        """Return the report for a terminal."""
        grid = Table.grid(padding=(0, 2))
        for name, value in self._rows():
            grid.add_row(Text(name, style="grey62"), value)
        return Group(Text(), grid, Text(), self._verdict())

    def _rows(self) -> list[tuple[str, Text]]:
        audit, tally = self.audit, self.tally
        agreed, clear = tally.agreement()
        reasons = ", ".join(f"{name} {number}" for name, number in sorted(audit["reasons"].items()))
        latency = [tally.latency_ms(share) for share in (0.5, 0.99)]
        p50, p99 = (duration(ms) if ms is not None else "-" for ms in latency)
        pace = f"sent at {self.rate:g}/s" if self.rate else "sent as fast as possible"
        faults = ("missing", "duplicated", "reordered")
        rows = [
            ("in", f"{audit['consumed']:,} records"),
            ("out", f"{audit['published']:,} labelled"),
            ("dead letters", f"{audit['dead_lettered']:,}: {reasons}"),
            ("audit", ", ".join(f"{audit[name]} {name}" for name in faults)),
            ("speed", f"{tally.texts_per_second():,.0f} texts/s, {pace}"),
            ("end to end", f"p50 {p50}, p99 {p99}"),
        ]
        if clear:
            share = f"{agreed / clear:.1%} of {clear:,} posts that people rated clearly good or bad"
            rows.append(("agrees with people on", share))
        agreed, unseen = tally.agreement(unseen=True)
        if unseen:
            share = f"{agreed / unseen:.1%} of the {unseen:,} that its training left out"
            rows.append(("", share))
        return [(name, Text(value, style="bold")) for name, value in rows]

    def _verdict(self) -> Text:
        if self.good:
            verdict = "Every promise held; the dead letters are exactly the broken records."
            return Text(verdict, style="bold #4fc38a")
        text = Text("A promise was broken:", style="bold #ee7a5e")
        for fault in self._faults():
            text.append(f"\n  {fault}")
        return text

    def _faults(self) -> list[str]:
        faults = [f"{surprise} ({n} times)" for surprise, n in Counter(self.surprises).items()]
        if not self.audit["holds"]:
            faults.append("the audit failed: " + ", ".join(self.audit.get("broken", ())))
        if self.audit["consumed"] != self.tally.total:
            consumed, sent = self.audit["consumed"], self.tally.total
            faults.append(f"the audit counted {consumed} records, {sent} were sent")
        return faults


def next_steps(program: str) -> RenderableType:
    """Return the commands to try after the demo.

    Args:
        program: the command to start streamlabel with.
    """
    steps = (
        (f"{program} demo --keep", "keep the live page open until Ctrl-C"),
        (f"{program} init --topic TOPIC", "write streamlabel.toml for your topic and model"),
        (f"{program} run", "label that topic"),
    )
    grid = Table.grid(padding=(0, 3))
    for command, purpose in steps:
        grid.add_row(Text(f"  {command}"), Text(purpose, style="grey62"))
    return Group(Text(), Text("next:", style="bold"), grid, Text("  more: docs/quickstart.md"))


def program() -> str:
    """Return the command that starts streamlabel here, such as `.venv/bin/streamlabel`."""
    path = Path(sys.argv[0])
    if path.name != "streamlabel" or shutil.which("streamlabel"):
        return "streamlabel"
    return os.path.relpath(path)


def save_screenshot(path: Path, summary: Summary, headline: str) -> None:
    """Write the last frame and the report as an SVG file."""
    recorder = Console(
        record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    recorder.print(frame(summary.tally, headline))
    recorder.print(summary.as_text())
    svg = recorder.export_svg(title="streamlabel demo")
    # The exporter links web fonts; without them the viewer's own monospace font is used.
    path.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")
