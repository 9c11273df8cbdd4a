"""FAILURES.md matches the tests: each proof exists, and each injected fault has a row."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "tests/FAILURES.md").read_text(encoding="utf-8")
COMPLAINTS = "## What users of such workers complain about"
CHAOS = "tests/chaos/test_chaos.py::test_the_promises_hold_while_everything_breaks"
# Tests of programs that deliver no records.
NO_FAULTS = {
    "test_audit.py",
    "test_bench.py",
    "test_demo.py",
    "test_metrics.py",
    "test_topics.py",
    "test_tracing.py",
    "test_turns.py",
}

_PROOF = re.compile(r"`(tests/[\w/]+\.py::test_\w+)`")
_COMPLAINT = re.compile(r"FIELD complaint (\d+):")


def docstrings() -> dict[str, str]:
    """Return the docstring of every test, by `path::name`."""
    return {
        f"{path.relative_to(ROOT).as_posix()}::{node.name}": ast.get_docstring(node) or ""
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def rows(text: str) -> list[list[str]]:
    """Return the cells of each table row, without heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [
        row
        for row, below in zip(cells, [*cells[1:], [""]], strict=True)
        if "---" not in (row[0], below[0])
    ]


def test_every_proof_exists() -> None:
    """A renamed or deleted test must change its row."""
    assert not set(_PROOF.findall(PAGE)) - set(docstrings())


def test_every_row_names_its_proof() -> None:
    """The page claims no behaviour without a test."""
    failures, _, _ = PAGE.partition(COMPLAINTS)
    assert len(rows(failures)) > 20
    assert [row for row in rows(failures) if len(row) != 5 or not _PROOF.search(row[-1])] == []


def test_a_row_that_cites_chaos_names_its_test() -> None:
    """A row that cites the chaos test must name it as its proof."""
    chaotic = [row for row in rows(PAGE) if "(chaos" in " ".join(row[2:4])]
    assert len(chaotic) > 10
    assert [row for row in chaotic if CHAOS not in row[-1]] == []


def test_every_injected_fault_has_a_row() -> None:
    """A new test of a fault needs a row."""
    faults = {
        name
        for name in docstrings()
        if name.startswith(("tests/integration/", "tests/chaos/"))
        and name.partition("::")[0].rpartition("/")[2] not in NO_FAULTS
    }
    assert not faults - set(_PROOF.findall(PAGE))


def test_the_table_of_complaints_matches_the_docstrings() -> None:
    """A docstring names a complaint's number exactly if the row of that number names the test."""
    by_docstring = defaultdict(set)
    for name, docstring in docstrings().items():
        for number in _COMPLAINT.findall(docstring):
            by_docstring[int(number)].add(name)
    _, _, table = PAGE.partition(COMPLAINTS)
    by_table = {int(row[0]): set(_PROOF.findall(row[2])) for row in rows(table)}
    assert list(by_table) == list(range(1, 13))
    assert by_table == by_docstring
