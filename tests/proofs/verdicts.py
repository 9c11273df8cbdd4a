"""Decides from the audit whether a proof held. Pure."""

from __future__ import annotations

from tests.kube.verdicts import Tally
from tests.proofs.registry import Proved


def broken(proved: Proved) -> tuple[str, ...]:
    """Return a phrase for each broken promise; empty if all held."""
    tally = Tally.of(proved.report)
    found = [
        f"{number} {name}"
        for name in ("missing", "reordered", "orphans", "unjudged")
        if (number := getattr(tally, name))
    ]
    if tally.records != proved.records:
        found.append(f"{tally.records} records judged instead of {proved.records}")
    if proved.twice_allowed is not None and tally.twice > proved.twice_allowed:
        found.append(f"{tally.twice} twice instead of at most {proved.twice_allowed}")
    if proved.dead_letters not in (None, tally.dead_letters):
        found.append(f"{tally.dead_letters} dead letters instead of {proved.dead_letters}")
    return tuple(found)
