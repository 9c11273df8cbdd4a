"""Simulated histories keep every promise, replay exactly, and find the bugs that are planted."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.simulation.__main__ import find, run
from tests.simulation.bugs import BUGS
from tests.simulation.history import live
from tests.simulation.process import simulated

_SEEDS = 2_000
_PARTS = 4  # so that several processes share them
# Each bug is found by a seed below this one (`make simulate-planted` shows which).
_MOST = 6_000


@pytest.mark.parametrize("part", range(_PARTS))
def test_every_promise_holds_in_every_history(part: int) -> None:
    total = run(range(part, _SEEDS, _PARTS))
    assert not total.broken, "replay one with `python -m tests.simulation --seed N`"
    assert total.histories == _SEEDS / _PARTS
    assert total.records > 5 * total.histories
    assert len(total.faults) == 12, "every kind of event has happened"


@pytest.mark.parametrize("bug", BUGS)
def test_a_planted_bug_is_found(bug: str) -> None:
    assert find(bug, _MOST), f"not found in {_MOST} histories"


def test_a_seed_replays_exactly() -> None:
    """Also in another process, whose sets and dictionaries of strings have another order."""
    with simulated():
        here = [live(seed, trace=True).trace for seed in range(40)]
    program = (
        "from tests.simulation.history import live\n"
        "from tests.simulation.process import simulated\n"
        "with simulated():\n"
        "    print([live(seed, trace=True).trace for seed in range(40)])\n"
    )
    there = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONHASHSEED": "4711", "PYTHONPATH": os.curdir},
        capture_output=True,
        text=True,
        check=True,
    )
    assert there.stdout.strip() == str(here)


def test_another_seed_is_another_history() -> None:
    with simulated():
        traces = [live(seed, trace=True).trace for seed in (7, 8)]
    assert traces[0] != traces[1]
