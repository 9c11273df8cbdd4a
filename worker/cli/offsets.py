"""Show, reset or export the offsets of the worker's group.

    streamlabel offsets show
    streamlabel offsets reset --to 2h --dry-run
    streamlabel offsets reset --to shift:-500 --partition 0,2 --yes
    streamlabel offsets export > before.csv
    streamlabel offsets reset --to file:before.csv --yes

`reset` shows before and after, and how many offsets the group will read again or skip. It refuses
while the group has members, and while an offset is part of an open transaction. It looks again
after the confirmation, and writes only what it has shown. An offset outside the log is moved into
it. Exits 1 if it is refused or not confirmed.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from worker.core.counted import counted
from worker.core.resets import (
    HEADER,
    Place,
    Reset,
    outdated,
    parse_file,
    plan,
    shifted,
    without_range,
)
from worker.core.when import FORMS, parse_when
from worker.errors import ArgumentsError, Fatal
from worker.settings import Loaded, Settings

if TYPE_CHECKING:  # loading it loads the Kafka client
    from worker.core.records import Partition
    from worker.kafka_io.admin import Admin, Member

OPTIONS: tuple[str, ...] = (
    "kafka.",
    "input.topic",
    "input.topics",
    "input.topic_pattern",
    "transaction_timeout",
)

_DONE, _FAILED = 0, 1
_SHIFT = re.compile(r"shift:([+-]?\d+)")
_FILE = "file:"
_OF_RESET = ("to", "partition", "dry_run", "yes")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the action, and where to reset to."""
    parser.add_argument(
        "action",
        choices=("show", "reset", "export"),
        help="show the group, reset its offsets, or print them as CSV",
    )
    parser.add_argument("--json", action="store_true", help="show, reset: print one JSON object")
    parser.add_argument(
        "--to",
        metavar="WHEN",
        help=f"reset: {FORMS}; or shift:N (shift:-500 repeats 500), or file:PATH (CSV of "
        "topic,partition,offset, as `export` prints it)",
    )
    parser.add_argument(
        "--partition",
        type=_numbers,
        metavar="P,P",
        help="reset: only these partitions [default: all]",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="reset: show what would change, and change nothing"
    )
    parser.add_argument("--yes", action="store_true", help="reset: do not ask for confirmation")


def _numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Show, reset or export; return 0, or 1 if a reset was not confirmed.

    Raises:
        ArgumentsError: a place, a file or a partition can't be used.
        Fatal: the group has members or an open transaction, or moved before the confirmation.
    """
    from worker.kafka_io.admin import Admin
    from worker.kafka_io.group_state import input_partitions, places

    _check_usage(args)
    settings = loaded.settings
    with Admin(settings.kafka) as admin:
        group = settings.kafka.group_id
        if args.action == "reset":
            return _reset(args, settings, admin)
        now = places(admin, group, input_partitions(admin, settings))
        members = admin.members(group)
    if args.action == "export":
        _export(group, now)
    else:
        _show(args, settings, now, members)
    return _DONE


def _check_usage(args: argparse.Namespace) -> None:
    if args.action == "reset" and args.to is None:
        raise ArgumentsError("reset needs --to: where the group is to go on")
    if args.action != "reset":
        given = [name for name in _OF_RESET if getattr(args, name)]
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise ArgumentsError(f"{flags} has no effect with {args.action!r}: it belongs to reset")


# -- show and export ---------------------------------------------------------------------------


def _show(
    args: argparse.Namespace, settings: Settings, now: list[Place], members: Sequence[Member]
) -> None:
    from worker.cli.offsets_view import print_group
    from worker.clock import SystemClock
    from worker.kafka_io.group_state import pending, record_times

    behind = {
        p.partition: max(p.committed, p.start)
        for p in now
        if p.committed is not None and max(p.committed, p.start) < p.end
    }
    times = record_times(settings, behind, SystemClock())
    waiting = pending(settings, [place.partition for place in now])
    document = _document(settings.kafka.group_id, now, members, times, waiting)
    if args.json:
        print(json.dumps(document, ensure_ascii=False))
    else:
        print_group(document)


def _document(
    group: str,
    now: list[Place],
    members: Sequence[Member],
    times: dict[Partition, int],
    waiting: list[Partition],
) -> dict[str, Any]:
    owners = {p: member.client_id for member in members for p in member.partitions}
    rows = [_row(place) | _more(place, owners, times, waiting) for place in now]
    return {
        "group": group,
        "members": [
            {
                "client_id": member.client_id,
                "host": member.host,
                "partitions": [list(partition) for partition in member.partitions],
            }
            for member in members
        ],
        "partitions": rows,
        "lag": sum(row["lag"] for row in rows),
    }


def _row(place: Place) -> dict[str, Any]:
    at = place.start if place.committed is None else place.committed
    return {
        "topic": place.partition.topic,
        "partition": place.partition.partition,
        "start": place.start,
        "committed": place.committed,
        "end": place.end,
        "lag": max(0, place.end - max(at, place.start)),
    }


def _more(
    place: Place,
    owners: dict[Partition, str],
    times: dict[Partition, int],
    waiting: list[Partition],
) -> dict[str, Any]:
    from worker.core.bounds import read_note

    bound = read_note(place.note)
    return {
        "next_record_ms": times.get(place.partition),
        "member": owners.get(place.partition),
        "in_open_transaction": place.partition in waiting,
        "range": None if bound is None else [bound.start, bound.end],
    }


def _export(group: str, now: list[Place]) -> None:
    for place in now:
        if place.committed is not None:
            print(f"{place.partition.topic},{place.partition.partition},{place.committed}")
    if all(place.committed is None for place in now):
        raise Fatal(f"group {group!r} has committed no offset of these topics")


# -- reset -------------------------------------------------------------------------------------


def _reset(args: argparse.Namespace, settings: Settings, admin: Admin) -> int:
    from worker.cli.offsets_view import print_plan

    group = settings.kafka.group_id
    now = _unused(settings, admin)
    chosen = _chosen(args.partition, now)
    resets = plan(chosen, _wanted(args, group, admin, now, chosen))
    _require_ranges(group, resets, now)
    if args.json:
        print(json.dumps(_plan_document(group, resets, args), ensure_ascii=False))
    else:
        print_plan(group, resets)
    changes = [reset for reset in resets if reset.changes]
    if args.dry_run or not changes:
        print("nothing changed" + (" (--dry-run)" if args.dry_run else ""), file=sys.stderr)
        return _DONE
    if not args.yes and not _confirmed(group):
        print("nothing changed: confirm with --yes", file=sys.stderr)
        return _FAILED
    if moved := outdated(resets, _unused(settings, admin)):
        raise Fatal(
            f"group {group!r}: {_names(moved)} changed before the reset was written, so nothing was "
            "changed: repeat the command"
        )
    _write(admin, group, changes)
    print(f"reset {counted(len(changes), 'partition')} of group {group}", file=sys.stderr)
    return _DONE


def _unused(settings: Settings, admin: Admin) -> list[Place]:
    """Return where the group is, once nothing can move it.

    Raises:
        Fatal: it has members, or an offset is part of an open transaction.
    """
    from worker.kafka_io.group_state import input_partitions, pending, places

    group, partitions = settings.kafka.group_id, input_partitions(admin, settings)
    if members := admin.members(group):
        names = ", ".join(f"{member.client_id} at {member.host}" for member in members)
        raise Fatal(
            f"group {group!r} has {counted(len(members), 'member')} ({names}): stop them first, "
            "because a member commits its own offsets over a reset (a killed one leaves after "
            f"kafka.session_timeout, {settings.kafka.session_timeout:g} s by these settings)"
        )
    if waiting := pending(settings, partitions):
        raise Fatal(
            f"group {group!r}: offsets of {_names(waiting)} are part of a transaction that is still open, and "
            "its end would change them: repeat the command once the broker has ended it "
            f"(transaction_timeout, {settings.transaction_timeout:g} s by these settings)"
        )
    return places(admin, group, partitions)


def _require_ranges(group: str, resets: list[Reset], now: list[Place]) -> None:
    if new := without_range(resets, now):
        raise Fatal(
            f"group {group!r} labels a range (`streamlabel backfill`), and has chosen no range of "
            f"{_names(new)} yet: run its backfill first, or leave these out with --partition"
        )


def _names(partitions: Iterable[Partition]) -> str:
    return ", ".join(f"{p.topic}[{p.partition}]" for p in partitions)


def _chosen(numbers: list[int] | None, now: list[Place]) -> list[Place]:
    if numbers is None:
        return now
    known = {place.partition.partition for place in now}
    if unknown := sorted(set(numbers) - known):
        raise ArgumentsError(
            f"--partition: no partition {', '.join(map(str, unknown))}; there are "
            f"{', '.join(map(str, sorted(known)))}"
        )
    return [place for place in now if place.partition.partition in numbers]


def _wanted(
    args: argparse.Namespace, group: str, admin: Admin, now: list[Place], chosen: list[Place]
) -> dict[Partition, int]:
    from worker.clock import SystemClock
    from worker.kafka_io.places import locate

    if match := _SHIFT.fullmatch(args.to):
        return shifted(chosen, int(match[1]))
    if args.to.startswith(_FILE):
        known = [place.partition for place in now]
        return parse_file(_read(Path(args.to.removeprefix(_FILE))), group, known)
    when = parse_when(args.to, SystemClock().wall_ms())
    when.require({place.partition.partition for place in now})
    return locate(admin, [place.partition for place in chosen], when, group)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ArgumentsError(f"can't read {path}: {error}") from error


def _plan_document(group: str, resets: list[Reset], args: argparse.Namespace) -> dict[str, Any]:
    return {
        "group": group,
        "dry_run": args.dry_run,
        "partitions": [
            dict(zip(HEADER[:2], reset.place.partition, strict=True))
            | {
                "before": reset.place.committed,
                "wanted": reset.wanted,
                "after": reset.after,
                "repeated": reset.repeated,
                "skipped": reset.skipped,
            }
            for reset in resets
        ],
    }


def _confirmed(group: str) -> bool:
    if not sys.stdin.isatty() or not sys.stderr.isatty():
        return False
    print(f"reset group {group}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def _write(admin: Admin, group: str, changes: list[Reset]) -> None:
    """Commit the offsets, and read them back.

    Raises:
        Fatal: the broker refuses them, or the group has others now.
    """
    from worker.kafka_io.admin import GroupOffset

    admin.set_offsets(
        group, {r.place.partition: GroupOffset(r.after, r.place.kept_note) for r in changes}
    )
    committed = admin.all_committed(group)
    if wrong := [r.place.partition for r in changes if committed.get(r.place.partition) != r.after]:
        raise Fatal(
            f"group {group!r} has other offsets of {_names(wrong)} than were set: look again"
        )
