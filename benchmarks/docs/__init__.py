"""Writes the generated parts of `docs/` from the code: `python -m benchmarks.docs [--check]`.

Owns: the text between `<!-- NAME:begin -->` and `<!-- NAME:end -->` on the pages of `docs/`.
Thread: the main thread.
Must not import: torch, transformers, kafka and worker.cli; the generator runs `streamlabel`.

Modules::

    settings    every option
    metrics     every metric
    messages    the members of each message, the reasons of dead letters
    commands    every command with its arguments
    runbook     every alert of deploy/prometheus/alerts.yml
    performance goals and figures of each machine in benchmarks/results
    markdown    tables and markers
    links       the hook of mkdocs.yml, which shortens the names of tests
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.docs import commands, messages, metrics, performance, runbook, settings
from benchmarks.docs.markdown import MarkersMissing, replaced

PAGES = Path(__file__).parents[2] / "docs"

# The page and the name of each generated part.
PARTS: dict[tuple[str, str], Callable[[], str]] = {
    ("settings.md", "settings"): settings.page,
    ("metrics.md", "metrics"): metrics.table,
    ("messages.md", "messages"): messages.members,
    ("messages.md", "reasons"): messages.reasons,
    ("commands.md", "commands"): commands.page,
    ("runbook.md", "runbook"): runbook.page,
    ("performance.md", "performance"): performance.page,
}


def main(argv: Sequence[str] | None = None, pages: Path = PAGES) -> int:
    """Write the generated parts of the documentation from the code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.docs", description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on drift")
    check = parser.parse_args(argv).check
    stale = set()
    for (page, name), make in PARTS.items():
        path = pages / page
        old = path.read_text(encoding="utf-8")
        try:
            new = replaced(old, name, make())
        except MarkersMissing as error:
            sys.stderr.write(f"{page}: {error}\n")
            return 1
        if new != old and check:
            stale.add(page)
        elif new != old:
            path.write_text(new, encoding="utf-8")
    for page in sorted(stale):
        sys.stderr.write(f"docs/{page} is out of date: run python -m benchmarks.docs\n")
    return 1 if stale else 0
