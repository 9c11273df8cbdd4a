"""Decides from two audits whether a scenario kept every promise. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Self

Delivery = Literal["at_least_once", "exactly_once"]

# Beside running workers there are always a few; the next audit judges them.
_NOT_YET = "outcome of a record that is not committed yet"

# Longest time in which a partition may have no result while pods are replaced one by one, seconds.
# A pod is ready after 10 s on an idle machine. A static member keeps its partitions until it is
# back, 45 s by default (`kafka.session_timeout`); beyond that, others would get them.
MOST_STALL_S: Mapping[Delivery, float] = {"at_least_once": 30.0, "exactly_once": 60.0}


class Failed(Exception):
    """Something that a scenario waits for did not happen, or was not as it should be."""


def told(error: BaseException | None) -> tuple[str, ...]:
    """Return the messages of a failure and of those before it, which a clean-up's would hide."""
    if not isinstance(error, Failed):
        return ()
    earlier = None if error.__suppress_context__ else error.__context__
    return (*told(earlier), str(error))


@dataclass(frozen=True)
class Tally:
    """The numbers of an audit over everything so far.

    Attributes:
        records: input records that were judged.
        missing: those without an outcome.
        twice: outcomes after a record's first one.
        reordered: outcomes behind one of a later record of their partition.
        orphans: outcomes without an input record.
        dead_letters: input records whose first outcome is a dead letter.
        unjudged: records and outcomes that the audit could not judge, and never will.
    """

    records: int = 0
    missing: int = 0
    twice: int = 0
    reordered: int = 0
    orphans: int = 0
    dead_letters: int = 0
    unjudged: int = 0

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> Self:
        """Read the fields of `worker.core.audit_report.AuditReport`, as a mapping."""
        return cls(
            records=report["consumed"],
            missing=report["missing"],
            twice=report["duplicated"],
            reordered=report["reordered"],
            orphans=report["orphans"],
            dead_letters=report["dead_lettered"],
            unjudged=sum(n for reason, n in report["unjudged"].items() if reason != _NOT_YET),
        )

    def since(self, before: Tally) -> Tally:
        """Return what was added after `before`."""
        return Tally(**{name: value - getattr(before, name) for name, value in vars(self).items()})


def stalled(seconds: float, delivery: Delivery) -> list[str]:
    """Return a phrase if the longest stall of a partition was not below its bound."""
    bound = MOST_STALL_S[delivery]
    return [f"stalled for {seconds:.1f} s, not below {bound:g} s"] if seconds >= bound else []


def broken(before: Tally, after: Tally, delivery: Delivery, *, planned: bool) -> list[str]:
    """Return a phrase for each broken promise; an empty list if all held.

    Args:
        before: audit of the topics before the scenario.
        after: audit of the same topics after it.
        delivery: exactly once forbids a second outcome at any time.
        planned: whether every end of a worker was a planned one, which forbids it too.
    """
    added = after.since(before)
    found = []
    if added.records <= 0:
        found.append("no record was judged")
    if after.missing:
        found.append(f"{after.missing} missing")
    if added.twice and (planned or delivery == "exactly_once"):
        found.append(f"{added.twice} twice")
    found += [
        f"{number} {name.replace('_', ' ')}"
        for name in ("reordered", "orphans", "dead_letters", "unjudged")
        if (number := getattr(after, name))
    ]
    return found
