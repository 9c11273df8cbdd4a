"""`python -m tests.simulation`: live through many histories, or through one again.

--seeds 100000            that many histories, on every core
--first 500000            begin at this seed
--seed 42                 one history, told line by line
--plant NAME              with a bug; `--planted` tries all of them
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field

from tests.simulation.bugs import BUGS, planted
from tests.simulation.history import Verdict, live
from tests.simulation.process import simulated

_SLICE = 250  # seeds that a process takes at a time
_SHOWN = 5  # seeds with a broken promise that are shown


@dataclass
class Total:
    """Sums over many histories."""

    histories: int = 0
    records: int = 0
    repeated: int = 0
    filtered: int = 0
    copies: int = 0
    seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    broken: dict[int, list[str]] = field(default_factory=dict)

    def add(self, verdict: Verdict) -> None:
        """Count one history."""
        self.histories += 1
        self.records += verdict.report.consumed
        self.repeated += verdict.report.duplicated
        self.filtered += verdict.report.filtered
        self.copies += sum(verdict.report.copies.values())
        self.seconds += verdict.seconds
        self.faults.update(verdict.happened)
        if verdict.problems:
            self.broken[verdict.plan.seed] = verdict.problems

    def join(self, other: Total) -> None:
        """Add what another process counted."""
        self.histories += other.histories
        self.records += other.records
        self.repeated += other.repeated
        self.filtered += other.filtered
        self.copies += other.copies
        self.seconds += other.seconds
        self.faults.update(other.faults)
        self.broken |= other.broken


def run(seeds: Iterable[int]) -> Total:
    """Live through these histories, in this process."""
    total = Total()
    gc.freeze()  # a world is small: only what has come since is looked at
    gc.disable()
    try:
        with simulated():
            for seed in seeds:
                total.add(live(seed))
                gc.collect(0)  # nothing of a world outlives it, so this is all that there is
    finally:
        gc.enable()
        gc.unfreeze()
    return total


def find(name: str, most: int) -> tuple[int, list[str]] | None:
    """Return the first seed that finds a planted bug, and its problems; None without one."""
    with simulated(), planted(name):
        for seed in range(most):
            if problems := live(seed).problems:
                return seed, problems
    return None


def main() -> int:
    """Return the exit status: 1 if a promise broke, or if a planted bug was not found."""
    options = _options()
    if options.seed is not None:
        return _tell(options.seed, options.plant)
    if options.planted:
        return _find_all(options.seeds)
    if options.plant:
        return 0 if _report_find(options.plant, options.seeds) else 1
    return _run_many(range(options.first, options.first + options.seeds))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation")
    parser.add_argument("--seeds", type=int, default=2_000, help="number of histories")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="tell this history line by line")
    parser.add_argument("--plant", choices=BUGS, help="plant this bug")
    parser.add_argument("--planted", action="store_true", help="plant each bug, one by one")
    return parser.parse_args()


def _tell(seed: int, bug: str | None) -> int:
    with simulated():
        if bug:
            with planted(bug):
                verdict = live(seed, trace=True)
        else:
            verdict = live(seed, trace=True)
    print("\n".join(verdict.trace))
    print(f"\n{verdict.plan}\n{verdict.report}")
    for problem in verdict.problems:
        print(f"BROKEN: {problem}")
    return bool(verdict.problems)


def _find_all(most: int) -> int:
    missed = [name for name in BUGS if not _report_find(name, most)]
    if missed:
        print(f"not found in {most} histories: {', '.join(missed)}")
    return bool(missed)


def _report_find(name: str, most: int) -> bool:
    began = time.monotonic()
    found = find(name, most)
    took = time.monotonic() - began
    if found is None:
        print(f"{name:42} NOT FOUND in {most} histories, {took:.1f} s", flush=True)
        return False
    seed, problems = found
    print(f"{name:42} seed {seed:5}, {took:5.1f} s: {problems[0][:100]}", flush=True)
    return True


def _slices(seeds: range) -> Iterator[range]:
    for at in range(0, len(seeds), _SLICE):
        yield seeds[at : at + _SLICE]


def _run_many(seeds: range) -> int:
    total, began = Total(), time.monotonic()
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores) as pool:
        for part in pool.map(run, _slices(seeds)):
            total.join(part)
            if sys.stderr.isatty():
                rate = total.histories / (time.monotonic() - began)
                print(f"\r{total.histories} histories, {rate:.0f}/s ", end="", file=sys.stderr)
    took = time.monotonic() - began
    faults = ", ".join(f"{name} {number}" for name, number in sorted(total.faults.items()))
    print(
        f"{total.histories} histories on {cores} cores in {took:.1f} s "
        f"({total.histories / took:.0f}/s): {total.records} records ({total.filtered} "
        f"filtered, {total.copies} copies), {total.seconds:.0f} s of their own time, {total.repeated} repeats after faults; {faults}; "
        f"{len(total.broken)} broke a promise"
    )
    for seed, problems in list(total.broken.items())[:_SHOWN]:
        print(f"  --seed {seed}: {problems[0][:200]}")
    return bool(total.broken)


if __name__ == "__main__":
    sys.exit(main())
