"""The output of `streamlabel calibrate`: its figures, the reliability plot, and the settings.

Owns: the layout of them.
Thread: main.
Must not import: torch or transformers.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from worker.cli.labelled import BadRow
from worker.core.counted import counted
from worker.core.decisions.f1 import FEWEST
from worker.core.decisions.held_out import Calibration, Quality
from worker.core.decisions.reliability import Bin
from worker.core.decisions.rules import USUAL_THRESHOLD
from worker.settings.toml_values import inline

_BAR: Final = 40  # characters of a share of 1
_SHOWN: Final = 5  # bad rows


def tell_bad_rows(file: str, bad: Sequence[BadRow]) -> None:
    """Print the rows that are left out to standard error: how many, and the first few."""
    if not bad:
        return
    print(f"streamlabel: left out {counted(len(bad), 'row')} of {file}", file=sys.stderr)
    for row in bad[:_SHOWN]:
        print(f"  line {row.line}: {row.why}", file=sys.stderr)
    if len(bad) > _SHOWN:
        print(f"  and {len(bad) - _SHOWN:,} more", file=sys.stderr)


def report(found: Calibration, labels: Sequence[str], *, independent: bool) -> Iterator[str]:
    """Yield the lines of the report.

    Args:
        found: the calibration.
        labels: the model's, in the order of its probabilities.
        independent: whether each has a probability of its own.
    """
    low, high = min(found.by_fold), max(found.by_fold)
    yield f"temperature {found.fit.temperature:g} ({low:g} to {high:g} over the folds)"
    if found.fit.at_bound:
        yield "  the search ended at its bound: do the labels of the file mean those of the model?"
    yield ""
    yield from _comparison(found.before, found.after, independent=independent)
    for name, quality in (("before", found.before), ("after", found.after)):
        yield f"\n{name}: the bar is the share that is true, | is the mean probability stated"
        yield from (_plotted(one) for one in quality.bins if one.size)
    if independent:
        yield ""
        yield from _thresholds(found.thresholds, labels)
    if found.after.loss >= found.before.loss:
        yield "\nthe held-out texts are no better after: keep the probabilities as they are"


def _comparison(before: Quality, after: Quality, *, independent: bool) -> Iterator[str]:
    yield f"{'':34}{'before':>8}{'after':>8}   (each text held out of its own fit)"
    hits = "mean F1 of the labels" if independent else "accuracy"
    rows = (
        ("expected calibration error", before.error, after.error),
        ("negative log-likelihood, nats", before.loss, after.loss),
        (hits, before.hits, after.hits),
    )
    yield from (f"{name:34}{old:>8.4f}{new:>8.4f}" for name, old, new in rows)


def _plotted(one: Bin) -> str:
    bar = ("█" * round(one.true * _BAR)).ljust(_BAR + 1)
    at = round(one.stated * _BAR)
    plot = f"{bar[:at]}|{bar[at + 1 :]}".rstrip()
    return (
        f"  {one.low:.1f} to {one.high:.1f}{one.size:>9,}{one.stated:>8.3f}{one.true:>8.3f}  {plot}"
    )


def _thresholds(thresholds: Mapping[int, float], labels: Sequence[str]) -> Iterator[str]:
    width = max(map(len, labels))
    for number, label in enumerate(labels):
        own = thresholds.get(number)
        rare = f"{USUAL_THRESHOLD:g} (fewer than {FEWEST} texts have it, or lack it)"
        yield f"  {label:{width}}  {rare if own is None else format(own, 'g')}"


def settings_lines(title: Iterable[str], table: str, decision: Mapping[str, Any]) -> Iterator[str]:
    """Yield a table of settings as TOML, which a worker reads.

    Args:
        title: lines of a comment.
        table: its name.
        decision: its members: values, or tables of values.
    """
    yield from (f"# {line}" for line in title)
    yield f"[{table}]"
    tables = {key: value for key, value in decision.items() if isinstance(value, Mapping)}
    yield from (_member(key, decision[key]) for key in decision if key not in tables)
    for key, members in tables.items():
        yield f"\n[{table}.{key}]"
        yield from (_member(name, value) for name, value in members.items())


def _member(name: str, value: str | float) -> str:
    return inline({name: value})[1:-1]  # without the braces
