"""Prints dead letters, their counts and the end of a replay, for people and as JSON.

Owns: nothing.
Thread: main.
Must not import: torch, transformers or kafka.

Everything of a dead letter comes from elsewhere: control characters and markup never reach the
terminal.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from worker.core.counted import counted
from worker.core.dead_letters import Letter
from worker.core.encoder import DEAD_LETTER_HEADER
from worker.core.letter_groups import LetterCounts, LetterGroup
from worker.core.records import Headers
from worker.core.replay_rules import REFUSALS, ReplayCounts
from worker.core.visible import excerpt, visible

_BAR: Final = 24  # characters of a full bar
_HOURS: Final = 48  # shown, the last ones
_FAULTS: Final = 5  # of each group
_NAME: Final = 60  # characters of a name in a table


def _time(ms: int | None) -> str | None:
    if ms is None:
        return None
    try:
        moment = datetime.fromtimestamp(ms / 1000, UTC)
        return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    except (ValueError, OverflowError, OSError):  # any producer chooses timestamps
        return f"{ms} ms"


def _minute(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


# -- list ----------------------------------------------------------------------------------------


def counts_document(topic: str, counts: LetterCounts, filtered: int) -> dict[str, Any]:
    """Return the counts as JSON has them."""
    return {
        "topic": topic,
        "dead_letters": counts.letters,
        "filtered": filtered,
        "first_failed_at": _time(counts.first_ms),
        "last_failed_at": _time(counts.last_ms),
        "states": dict(counts.states),
        "attempts": {str(attempt): n for attempt, n in sorted(counts.attempts.items())},
        "by": counts.by,
        "groups": [group.document for group in counts.groups],
    }


def print_counts(topic: str, counts: LetterCounts, filtered: int) -> None:
    """Print a histogram."""
    console = Console(highlight=False)
    console.print(Text(f"{topic}: {_summary(counts, filtered)}"), soft_wrap=True)
    if not counts.letters:
        return
    groups = counts.groups
    shown = groups[-_HOURS:] if counts.by == "hour" else groups
    table = Table(box=None, pad_edge=False)
    table.add_column(counts.by)
    table.add_column("dead letters", justify="right")
    table.add_column("share", justify="right", no_wrap=True)
    if console.is_terminal:
        table.add_column("", width=min(_BAR, max(4, console.width // 4)), no_wrap=True)
    for group in shown:
        for row in _rows(group, console, max(one.number for one in shown)):
            table.add_row(*row[: len(table.columns)])
    console.print(table)
    if len(shown) < len(groups):
        console.print(f"and {counted(len(groups) - len(shown), 'earlier hour')} (--json has all)")


def _rows(group: LetterGroup, console: Console, most: int) -> Iterator[tuple[Text | str, ...]]:
    block = "#" if console.options.ascii_only else "█"
    width = min(_BAR, max(4, console.width // 4))
    bar = block * max(1, round(width * group.number / most))
    name = Text(excerpt(group.name, _NAME))
    yield name, f"{group.number:,}", f"{group.share:.1%}", Text(bar, "cyan")
    for (exception, stack_hash), number in list(group.faults.items())[:_FAULTS]:
        fault = Text(f"  {excerpt(exception, _NAME)} {excerpt(stack_hash, 16)}", "dim")
        yield fault, Text(f"{number:,}", "dim"), "", ""
    if (left := len(group.faults) - _FAULTS) > 0:
        yield Text(f"  and {left:,} more", "dim"), "", "", ""


def _summary(counts: LetterCounts, filtered: int) -> str:
    words = [counted(counts.letters, "dead letter")]
    if counts.first_ms is not None and counts.last_ms is not None:
        first, last = _minute(counts.first_ms), _minute(counts.last_ms)
        words.append(f"failed {first} UTC" if first == last else f"failed {first} to {last} UTC")
    states, tried = counts.states, counts.letters - counts.attempts[0]
    words += [f"{states['cut']:,} cut"] if states["cut"] else []
    words += [f"{states['incomplete']:,} incomplete"] if states["incomplete"] else []
    words += [f"{states['null']:,} without a value"] if states["null"] else []
    words += [f"{tried:,} of a replay"] if tried else []
    words += [f"{filtered:,} left out by the filters"] if filtered else []
    return ", ".join(words)


# -- show ----------------------------------------------------------------------------------------


def letter_document(topic: str, letter: Letter) -> dict[str, Any]:
    """Return a dead letter as JSON has it; bytes are in base64."""
    context = letter.context.model_dump(mode="json") if letter.context else None
    return {
        "topic": topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "timestamp_ms": letter.timestamp_ms,
        "dead_letter": context,
        "replay": {"source": letter.replay.source, "attempt": letter.attempt}
        if letter.replay
        else None,
        "key": _base64(letter.key),
        "headers": [{"name": name, "value": _base64(value)} for name, value in letter.headers],
        "value": _base64(letter.value),
    }


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")


def print_letter(topic: str, letter: Letter, *, first: bool) -> None:
    """Print all of a dead letter."""
    if not first:
        print()
    print("\n".join(f"{name:<11}{text}".rstrip() for name, text in _lines(topic, letter)))
    print()
    print(visible(_text(letter.value)))


def _lines(topic: str, letter: Letter) -> Iterator[tuple[str, str]]:
    yield "at", _line(f"{topic}/{letter.partition}/{letter.offset}")
    context = letter.context
    if context is None:
        yield "reason", "unknown: it has no document of streamlabel that can be read"
    else:
        source = context.source
        yield "of", _line(f"{source.topic}/{source.partition}/{source.offset}")
        yield "reason", _line(context.reason)
        yield "message", _line(context.message)
        if context.stack_hash:
            yield "stack hash", _line(context.stack_hash)
        if context.model:
            model = context.model
            yield "model", _line(f"{model.name} {model.revision} {model.weights_sha256[:12]}")
        yield "failed at", _time(context.failed_ms) or ""
        yield "worker", _line(context.worker_version)
    if letter.replay:
        place = "/".join(map(str, letter.replay.source))
        yield "replay", _line(f"{letter.attempt} of {place}")
    yield "timestamp", _time(context.source.timestamp_ms if context else letter.timestamp_ms) or ""
    yield "key", "none" if letter.key is None else _line(_text(letter.key))
    # The document of streamlabel is what the lines above say.
    headers = [one for one in letter.headers if context is None or one[0] != DEAD_LETTER_HEADER]
    yield from _header_lines(headers)
    size = counted(len(letter.value), "byte")
    yield "value", f"{size}, {_state(letter)}"


def _header_lines(headers: Headers) -> Iterator[tuple[str, str]]:
    for number, (name, value) in enumerate(headers):
        text = "null" if value is None else _line(_text(value))
        yield "" if number else "headers", f"{_line(name)}: {text}"


def _state(letter: Letter) -> str:
    if letter.context is None:
        return "as it is"
    if letter.context.value_state == "cut":
        return f"the beginning of {letter.context.value_bytes:,}"
    state = "the record has none" if letter.context.value_state == "null" else "whole"
    return state if letter.context.complete else f"{state}; key or headers were dropped"


def _text(value: bytes) -> str:
    """Return bytes as text; bytes that are no UTF-8 are escaped."""
    return value.decode("utf-8", "backslashreplace")


def _line(text: str) -> str:
    """Return a text in one line that is safe to print."""
    return excerpt(text, len(text))


# -- replay --------------------------------------------------------------------------------------


def replay_lines(counts: ReplayCounts, *, done: str) -> Iterator[str]:
    """Yield what happened to the dead letters that were read.

    Args:
        counts: the numbers.
        done: names what became of those that were replayed, with their number.
    """
    refused = counts.refused.total()
    yield (
        f"{counted(counts.read, 'dead letter')} read: {done}, {counts.filtered:,} left out by the "
        f"filters, {refused:,} refused"
    )
    for reason, number in counts.refused.most_common():
        yield f"  refused {number:,} x {reason}: {REFUSALS[reason]}"
