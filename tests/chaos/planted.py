"""`make chaos-planted`: plants known bugs, each with a seed that catches it.

Prints one JSON object for each bug, and one for each of the same runs without a bug. Exits with 0
only if every bug was caught and every run without one was clean.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tests.chaos.bugs import BUGS
from tests.chaos.cluster import Cluster, cluster
from tests.chaos.conduct import Subject, conduct
from tests.chaos.decisions import models
from tests.chaos.plan import Delivery, RecordFormat, draw
from tests.chaos.verdict import RunVerdict
from tests.support.models import make_checkpoint
from worker.errors import StreamlabelError
from worker.settings import read_environment


@dataclass(frozen=True)
class Trap:
    """A run that catches a bug: the kinds of faults that trigger it, and a seed."""

    delivery: Delivery
    only: tuple[str, ...]
    seed: int = 1
    faults: int = 8
    format: RecordFormat = "json"
    mode: str = "classification"
    decides: bool = False


# These make transactions fail while the worker keeps its partitions.
_UNANSWERED = ("broker_freeze", "broker_loss", "network_cut")

TRAPS: dict[str, Trap] = {
    "commit_before_acknowledgement": Trap(
        "at_least_once",
        ("busy_kill",),
        faults=3,
    ),
    "late_commit_after_revoke": Trap("at_least_once", ("join", "sigterm"), seed=7, faults=30),
    "no_drain_on_revoke": Trap("at_least_once", ("busy_join",), faults=4),
    "dead_stage_ignored": Trap("at_least_once", ("stage_crash",), faults=1),
    "swallowed_publish_error": Trap("exactly_once", _UNANSWERED, faults=7),
    "order_lost_on_retry": Trap("exactly_once", _UNANSWERED, faults=7),
    "offsets_outside_the_transaction": Trap("exactly_once", ("sigkill",)),
    "unstable_offsets_read_on_takeover": Trap("exactly_once", ("sigterm", "join")),
    "zombie_not_fenced": Trap("exactly_once", ("sigstop",)),
    "outage_taken_for_an_answer": Trap(
        "exactly_once", ("registry_kill", "sigterm"), seed=3, format="avro"
    ),
    "held_records_skipped": Trap("exactly_once", ("sigterm",), faults=2, format="avro"),
    "frame_of_another_schema": Trap(
        "exactly_once", ("sigterm",), faults=2, format="avro", mode="enrich"
    ),
    "copies_lost_with_their_producer": Trap("exactly_once", _UNANSWERED, faults=7, decides=True),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run each trap with its bug, and once without."""
    parser = argparse.ArgumentParser(prog="chaos-planted", description=__doc__)
    parser.add_argument("bugs", nargs="*", help=f"from {', '.join(BUGS)} [all]")
    parser.add_argument("--seed", type=int, help="replaces the seed of each trap")
    args = parser.parse_args(arguments)
    if unknown := set(args.bugs) - set(BUGS):
        parser.error(f"unknown bug: {', '.join(sorted(unknown))}; choose from {', '.join(BUGS)}")
    chosen = {name: TRAPS[name] for name in args.bugs or BUGS}
    if args.seed is not None:
        chosen = {name: replace(trap, seed=args.seed) for name, trap in chosen.items()}
    try:
        good = _run_all(chosen)
    except StreamlabelError as error:
        print(f"chaos: {error}", file=sys.stderr)
        return 2
    return 0 if good else 1


def _run_all(traps: dict[str, Trap]) -> bool:
    """Return True if each trap caught its bug, and was clean without it."""
    home = read_environment("KAFKA_HOME")
    folder = Path(tempfile.mkdtemp(prefix="streamlabel-tiny-"))
    make_checkpoint(folder / "tiny")
    runs: list[tuple[str | None, Trap]] = list(traps.items())
    runs += [(None, trap) for trap in dict.fromkeys(traps.values())]
    good = True
    registry = read_environment("REGISTRY_HOME") or "REGISTRY_HOME"
    needed = Path(registry) if any(trap.format == "avro" for trap in traps.values()) else None
    with cluster("apache", Path(home) if home else None, registry_home=needed) as brokers:
        for bug, trap in runs:
            verdict = _run_trap(trap, brokers, folder, bug)
            good = good and verdict.holds is (bug is None)
            _print(bug, trap, verdict)
    return good


def _run_trap(trap: Trap, brokers: Cluster, folder: Path, bug: str | None) -> RunVerdict:
    plan = draw(trap.seed, trap.faults, "apache", trap.only, trap.format)
    settings = {"output.mode": trap.mode, **(models(folder) if trap.decides else {})}
    subject = Subject(str(folder / "tiny"), trap.delivery, bug, settings, trap.decides)
    return conduct(plan, brokers, subject)


def _print(bug: str | None, trap: Trap, verdict: RunVerdict) -> None:
    facts = {
        "bug": bug,
        "seed": trap.seed,
        "caught": not verdict.holds,
        "after_s": verdict.seconds,
        "delivery": trap.delivery,
        "faults": verdict.faults,
        "missing": verdict.missing,
        "duplicated": verdict.duplicated,
        "duplicates_allowed": verdict.duplicates_allowed,
        "reordered": verdict.reordered,
        "undue_dead_letters": verdict.undue_dead_letters,
        "misread": verdict.misread,
        "uncopied": verdict.uncopied,
        "torn": verdict.torn,
        "drained": verdict.drained,
    }
    if bug is None and not verdict.holds:
        facts["logs"] = verdict.logs
    print(json.dumps(facts), flush=True)


if __name__ == "__main__":
    sys.exit(main())
