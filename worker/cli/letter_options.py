"""The options of `streamlabel dead-letters`, and what they choose.

Owns: which options each action takes.
Thread: main.
Must not import: torch, transformers or kafka.
"""

from __future__ import annotations

import argparse
import difflib
import math
from typing import Final

from schemas.dead_letter import DeadLetterReason
from worker.core.dead_letters import LetterFilters
from worker.core.letter_groups import GROUPINGS
from worker.core.replay import MOST_ATTEMPTS
from worker.core.when import MOMENTS, parse_moment

ACTIONS: Final = ("list", "show", "replay", "purge-report")
MAX_ATTEMPTS: Final = 3
_LEAST_RATE: Final = 0.1  # a poll is at most ten seconds late

# The actions that take an option; every action takes the filters.
_ACTIONS_OF: Final = {
    "place": ("show",),
    "raw": ("show",),
    "by": ("list",),
    "within": ("purge-report",),
    "to": ("replay",),
    "label": ("replay",),
    "exactly_once": ("replay",),
    "dry_run": ("replay",),
    "limit": ("replay",),
    "rate": ("replay",),
    "max_attempts": ("replay",),
    "include_cut": ("replay",),
    "again": ("replay",),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the action, its options and the filters."""
    add = parser.add_argument
    add(
        "action",
        choices=ACTIONS,
        metavar="ACTION",
        help="list (counts), show (one whole), replay, or purge-report (what may be purged)",
    )
    add(
        "place",
        nargs="?",
        metavar="PLACE",
        help="show: TOPIC/PARTITION/OFFSET, of the dead letter or of its record",
    )
    add("--json", action="store_true", help="print one JSON object")
    add("--by", choices=GROUPINGS, help="list: what to count by [default: reason]")
    add("--raw", action="store_true", help="show: write the bytes of the value, and nothing else")
    add(
        "--within",
        metavar="DURATION",
        help="purge-report: tell what retention removes within this duration, such as 90m or 7d "
        "[default: 1d]",
    )
    _add_filters(parser)
    _add_replay(parser)


def _add_filters(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("filters", "Several values of one filter go with commas.")
    add = group.add_argument
    add("--reason", type=_reasons, metavar="R,...", help="reasons, such as not_json")
    add("--since", metavar="WHEN", help=f"failed at or after {MOMENTS}")
    add("--until", metavar="WHEN", help="failed before this time")
    add("--partition", type=_partitions, metavar="N,...", help="of the dead-letter topic")
    add("--worker-version", type=_words, metavar="V,...", help="versions of the worker")
    add(
        "--failed-model",
        type=_words,
        metavar="M,...",
        help="models that failed: names, or beginnings of the hash of their weights",
    )
    add("--exception", type=_words, metavar="E,...", help="types, such as ValueError")
    add("--stack-hash", type=_words, metavar="H,...", help="beginnings of stack hashes")


def _add_replay(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("replay")
    add = group.add_argument
    add("--to", metavar="TOPIC", help="copy to this topic instead of the one each came from")
    add("--label", action="store_true", help="label at once; results go to the output topic")
    add("--exactly-once", action="store_true", help="same as --delivery exactly_once")
    add("--dry-run", action="store_true", help="tell what would be done, and do nothing")
    add("--limit", type=_count, metavar="N", help="replay N dead letters; the rest stays")
    add("--rate", type=_rate, metavar="R", help="dead letters a second [default: no limit]")
    add(
        "--max-attempts",
        type=_attempts,
        metavar="N",
        help=f"leave those that were replayed N times [default: {MAX_ATTEMPTS}]",
    )
    add("--include-cut", action="store_true", help="replay cut and incomplete ones too")
    add(
        "--again",
        action="store_true",
        help="begin at the first dead letter; leave out those that were labelled or failed again",
    )


def require_options_of(args: argparse.Namespace) -> None:
    """Exit with 2 if an option is given that its action does not take."""
    for name, actions in _ACTIONS_OF.items():
        if getattr(args, name) in (None, False) or args.action in actions:
            continue
        what = "PLACE" if name == "place" else f"--{name.replace('_', '-')}"
        args.command_parser.error(f"{what} goes with `{actions[0]}`, not with `{args.action}`")
    if args.action == "show" and args.place is None:
        args.command_parser.error("show needs TOPIC/PARTITION/OFFSET")
    if args.raw and args.json:
        args.command_parser.error("--raw and --json exclude each other")
    if args.label and args.to is not None:
        args.command_parser.error("--label and --to exclude each other")


def filters_of(args: argparse.Namespace, now_ms: int) -> LetterFilters:
    """Return the filters.

    Raises:
        ArgumentsError: a time has none of the forms.
    """
    return LetterFilters(
        reasons=args.reason or (),
        since_ms=None if args.since is None else parse_moment("--since", args.since, now_ms),
        until_ms=None if args.until is None else parse_moment("--until", args.until, now_ms),
        partitions=args.partition or (),
        versions=args.worker_version or (),
        models=args.failed_model or (),
        exceptions=args.exception or (),
        stack_hashes=args.stack_hash or (),
    )


def _words(text: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in text.split(","))
    if not all(words):
        raise argparse.ArgumentTypeError("an empty value")
    return words


def _reasons(text: str) -> tuple[str, ...]:
    known = [reason.value for reason in DeadLetterReason]
    for word in _words(text):
        if word not in known:
            near = difflib.get_close_matches(word, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(known)}"
            raise argparse.ArgumentTypeError(f"no reason {word!r}: {hint}")
    return _words(text)


def _partitions(text: str) -> tuple[int, ...]:
    return tuple(_number(word, 0) for word in _words(text))


def _number(text: str, least: int, most: float = math.inf) -> int:
    number = int(text)
    if not least <= number <= most:
        bound = f"at least {least}" if most == math.inf else f"{least} to {most:g}"
        raise argparse.ArgumentTypeError(f"must be {bound}")
    return number


def _count(text: str) -> int:
    return _number(text, 1)


def _attempts(text: str) -> int:
    return _number(text, 1, MOST_ATTEMPTS)


def _rate(text: str) -> float:
    rate = float(text)
    if not _LEAST_RATE <= rate < math.inf:
        raise argparse.ArgumentTypeError(f"must be at least {_LEAST_RATE:g} a second")
    return rate
