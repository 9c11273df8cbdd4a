"""docs/failures.md is in step with the tests: each proof exists, each fault has its row."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/failures.md").read_text(encoding="utf-8")
COMPLAINTS = "## What users of such workers complain about"
CHAOS = "tests/chaos/test_chaos.py::test_the_promises_hold_while_everything_breaks"
# They break no worker: their programs deliver nothing.
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
_NAMED = re.compile(r"FIELD complaint (\d+):")


def docstrings() -> dict[str, str]:
    """Every test of the project, `path::name`, and its docstring."""
    return {
        f"{path.relative_to(ROOT).as_posix()}::{node.name}": ast.get_docstring(node) or ""
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def rows(text: str) -> list[list[str]]:
    """The cells of each row of each table, heads left out."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [
        row
        for row, below in zip(cells, [*cells[1:], [""]], strict=True)
        if "---" not in (row[0], below[0])
    ]


def test_every_proof_exists() -> None:
    """A test that is renamed or deleted takes its row with it."""
    assert not set(_PROOF.findall(PAGE)) - set(docstrings())


def test_every_row_names_its_proof() -> None:
    """What no test brings about is not claimed."""
    failures, _, _ = PAGE.partition(COMPLAINTS)
    assert len(rows(failures)) > 20
    assert [row for row in rows(failures) if len(row) != 5 or not _PROOF.search(row[-1])] == []


def test_what_the_chaos_alone_covers_names_it() -> None:
    """A cell that says so, without the proof, would be a promise of somebody's."""
    chaotic = [row for row in rows(PAGE) if "(chaos" in " ".join(row[2:4])]
    assert len(chaotic) > 10
    assert [row for row in chaotic if CHAOS not in row[-1]] == []


def test_every_fault_that_is_injected_has_its_row() -> None:
    """Also those that somebody adds tomorrow."""
    faults = {
        name
        for name in docstrings()
        if name.startswith(("tests/integration/", "tests/chaos/"))
        and name.partition("::")[0].rpartition("/")[2] not in NO_FAULTS
    }
    assert not faults - set(_PROOF.findall(PAGE))


def test_the_table_of_complaints_is_what_the_tests_say() -> None:
    """In both directions: a number in a docstring, and a test in the row of that number."""
    said = defaultdict(set)
    for name, docstring in docstrings().items():
        for number in _NAMED.findall(docstring):
            said[int(number)].add(name)
    _, _, table = PAGE.partition(COMPLAINTS)
    told = {int(row[0]): set(_PROOF.findall(row[2])) for row in rows(table)}
    assert list(told) == list(range(1, 13))
    assert told == said
