"""docs/failures.md is in step with the tests: each named test exists, each fault has a row."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/failures.md").read_text(encoding="utf-8")
COMPLAINTS = "## Known complaints about such workers"
CHAOS = "tests/chaos/test_chaos.py::test_the_promises_hold_while_everything_breaks"
# Tests of commands, whose faults have rows as well, of clusters without a fault, and of the
# harness itself.
NO_FAULTS = {
    "test_audit.py",
    "test_backfill.py",
    "test_beginnings.py",
    "test_bench.py",
    "test_clusters.py",
    "test_demo.py",
    "test_late_reader.py",
    "test_metrics.py",
    "test_several_page.py",
    "test_model_history.py",
    "test_lives.py",
    "test_numbered_ledger.py",
    "test_offsets.py",
    "test_prefix_watch.py",
    "test_prefixes.py",
    "test_protocol.py",
    "test_proxy.py",
    "test_routes_audit.py",
    "test_security_faults.py",
    "test_storage_faults.py",
    "test_topics.py",
    "test_tracing.py",
    "test_turns.py",
}

_TEST = re.compile(r"`(tests/[\w/]+\.py::test_\w+)`")
_NUMBERED = re.compile(r"FIELD complaint (\d+):")


def docstrings() -> dict[str, str]:
    """Return every test of the project, `path::name`, with its docstring."""
    return {
        f"{path.relative_to(ROOT).as_posix()}::{node.name}": ast.get_docstring(node) or ""
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def rows(text: str) -> list[list[str]]:
    """Return the cells of each row of each table, without the heads."""
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [
        row
        for row, below in zip(cells, [*cells[1:], [""]], strict=True)
        if "---" not in (row[0], below[0])
    ]


def test_every_named_test_exists() -> None:
    """A test that is renamed or deleted must change its row."""
    assert not set(_TEST.findall(PAGE)) - set(docstrings())


def test_every_row_names_its_test() -> None:
    """The page claims no effect without a test."""
    failures, _, _ = PAGE.partition(COMPLAINTS)
    assert len(rows(failures)) > 20
    assert [row for row in rows(failures) if len(row) != 5 or not _TEST.search(row[-1])] == []


def test_rows_of_the_chaos_test_name_it() -> None:
    """A cell with "(chaos)" needs the chaos test in its row."""
    chaotic = [row for row in rows(PAGE) if "(chaos" in " ".join(row[2:4])]
    assert len(chaotic) > 10
    assert [row for row in chaotic if CHAOS not in row[-1]] == []


def test_every_test_of_a_fault_has_its_row() -> None:
    """New tests in `tests/integration/` and `tests/chaos/` need a row as well."""
    faults = {
        name
        for name in docstrings()
        if name.startswith(("tests/integration/", "tests/chaos/"))
        and name.partition("::")[0].rpartition("/")[2] not in NO_FAULTS
    }
    assert not faults - set(_TEST.findall(PAGE))


def test_the_table_of_complaints_matches_the_tests() -> None:
    """A number in a docstring needs the test in its row, and the reverse."""
    named = defaultdict(set)
    for name, docstring in docstrings().items():
        for number in _NUMBERED.findall(docstring):
            named[int(number)].add(name)
    _, _, table = PAGE.partition(COMPLAINTS)
    listed = {int(row[0]): set(_TEST.findall(row[2])) for row in rows(table)}
    assert list(listed) == list(range(1, 13))
    assert listed == named
