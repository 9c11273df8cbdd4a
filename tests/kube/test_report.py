"""The output of a run: lines, table and file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.kube.report import Line, line, step, table, write
from tests.kube.verdicts import Tally

GOOD = Line(
    "rollout",
    "3 pods replaced",
    61.6,
    Tally(2400),
    figures={"longest_stall_s": 4.5, "records_per_s": 80},
)
BAD = Line("evicted", "1 of 3", 5, Tally(1200, twice=3), broken=("3 twice", "1 orphans"))
BARE = Line("missing_secret", "told", 9)


def test_a_line_has_figures_numbers_and_verdict() -> None:
    assert line(GOOD) == (
        "rollout: 3 pods replaced; longest stall 4.5 s; 80 records/s; 62 s, 2,400 records, 0 missing, "
        "0 twice, 0 reordered: held"
    )
    assert line(BAD).endswith(
        "1,200 records, 0 missing, 3 twice, 0 reordered: FAILED: 3 twice, 1 orphans"
    )
    assert line(BARE) == "missing_secret: told; 9 s: held"


def test_the_table_lines_up() -> None:
    assert table([GOOD, BAD, BARE]).splitlines() == [
        "scenario        time  stall  records  missing  twice  reordered  verdict",
        "rollout         62 s  4.5 s    2,400        0      0          0  held",
        "evicted          5 s      -    1,200        0      3          0  FAILED: 3 twice, 1 orphans",
        "missing_secret   9 s      -        -        -      -          -  held",
    ]
    assert table([BAD]).splitlines() == [
        "scenario  time  records  missing  twice  reordered  verdict",
        "evicted    5 s    1,200        0      3          0  FAILED: 3 twice, 1 orphans",
    ]


def test_the_figures_are_written_with_the_verdict(tmp_path: Path) -> None:
    write(tmp_path / "build" / "kube.json", [GOOD, BAD])
    good, bad = json.loads((tmp_path / "build" / "kube.json").read_text())
    assert (good["figures"], good["held"]) == ({"longest_stall_s": 4.5, "records_per_s": 80}, True)
    assert (bad["held"], bad["broken"], bad["tally"]["twice"]) == (
        False,
        ["3 twice", "1 orphans"],
        3,
    )


def test_a_step_has_a_line_with_its_time_unless_it_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = [GOOD]
    with step(lines, "cluster", "the cluster is up"):
        pass
    with pytest.raises(ZeroDivisionError), step(lines, "broker", "Kafka is ready"):
        raise ZeroDivisionError
    assert [(one.name, one.held) for one in lines] == [("rollout", True), ("cluster", True)]
    assert capsys.readouterr().out == "cluster: the cluster is up; 0 s: held\n"
