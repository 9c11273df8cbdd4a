"""Check the settings, the broker, the topics, the newest records and the model.

Prints every setting in force with its origin (secrets hidden), then tries each part and says
what to do about each fault. It joins no group, commits nothing and shows no text.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from worker.core.visible import excerpt, visible
from worker.errors import AccessDenied, BrokerAway, Fatal, StreamlabelError
from worker.settings import Loaded, Option, Settings, options

if TYPE_CHECKING:
    from worker.core.records import ModelCard
    from worker.core.topics import TopicInfo

OPTIONS = ("",)

_LABELS, _LABEL = 30, 60  # that are shown, and characters of each
_SAMPLED = 20  # records of each partition


class Found(NamedTuple):
    """A part that works, and what is doubtful about it all the same."""

    words: str
    warnings: tuple[str, ...] = ()


Part = Callable[[Settings], Found]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what is this command's own."""
    parser.add_argument(
        "--only-changed", action="store_true", help="show only settings that differ from defaults"
    )


def run(args: argparse.Namespace, loaded: Loaded) -> int:
    """Print the settings and try each part.

    Returns:
        0 where every part works, 1 otherwise.
    """
    from rich.console import Console

    from worker.logs import configure

    configure(loaded.settings.log.level, loaded.settings.log.format)
    console = Console(highlight=False)
    console.print(_table(loaded, only_changed=args.only_changed))
    file = visible(str(loaded.file or "none"))
    console.print(f"settings file: {file}", markup=False, soft_wrap=True)
    for warning in loaded.warnings:
        console.print(f"[yellow]![/] {warning}", soft_wrap=True)
    parts: tuple[tuple[str, Part], ...] = (
        ("broker", _broker),
        ("topics", _topics),
        ("rights", _rights),
        ("records", _records),
        ("model", _model),
    )
    results = [_try(console, name, part, loaded.settings) for name, part in parts]
    return 0 if all(results) else 1


def _try(console: Any, name: str, part: Part, settings: Settings) -> bool:
    try:
        found, good = part(settings), True
    except StreamlabelError as error:
        found, good = Found(str(error)), False
    _say(console, "[green]ok[/]  " if good else "[red]FAIL[/]", name, found.words)
    for warning in found.warnings:
        _say(console, "[yellow]!![/]  ", name, warning)
    return good


def _say(console: Any, mark: str, name: str, words: str) -> None:
    console.print(f"{mark} {name}: ", end="")
    # Soft wrapping, so that a command in it can be copied; visible, for a label may hold anything.
    console.print(visible(words), markup=False, soft_wrap=True)


def _table(loaded: Loaded, *, only_changed: bool) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("setting", "value", "from"):
        table.add_column(column, overflow="fold")
    for option in options():
        origin = loaded.origins.get(option.path)
        if origin or not only_changed:
            value = visible(shown(option, loaded.settings))
            table.add_row(option.path, value.replace("[", r"\["), origin or "[dim]default[/]")
    return table


def shown(option: Option, settings: Settings) -> str:
    """An option's value as it may be shown: a secret only says whether it is set."""
    value: Any = settings
    for step in option.path.split("."):
        value = getattr(value, step)
    if value is None:
        return "-"
    return "(hidden)" if option.secret else str(value)


def _broker(settings: Settings) -> Found:
    from worker.kafka_io.admin import Admin

    with Admin(settings.kafka) as admin:
        return Found(
            f"{settings.kafka.bootstrap_servers} answers", tuple(admin.unreachable_brokers())
        )


def _topics(settings: Settings) -> Found:
    from worker.runtime.topics import suitability_warnings

    found = _there(settings)
    partitions = (f"{name} ({info.partitions} partitions)" for name, info in found.items())
    return Found(", ".join(partitions), tuple(suitability_warnings(settings, found)))


def _there(settings: Settings) -> dict[str, TopicInfo]:
    from worker.runtime.topics import require

    return require(settings.model_copy(update={"create_topics": False}))


def _rights(settings: Settings) -> Found:
    from worker.clock import SystemClock
    from worker.kafka_io.rights import try_rights

    rights = try_rights(settings, SystemClock())
    user = settings.kafka.sasl_username or "this client"
    lacking = [right for right in rights if right.held is False]
    if needed := [right.words for right in lacking if right.needed]:
        raise AccessDenied(f"{user} lacks {', '.join(needed)}: grant that")
    warnings = []
    if lacking:
        told = ", ".join(right.words for right in lacking)
        warnings.append(f"{user} lacks {told}: what these topics take is found out by trying")
    if untold := [right.words for right in rights if right.held is None]:
        warnings.append(f"the broker does not tell whether {user} has {', '.join(untold)}")
    held = ", ".join(right.words for right in rights if right.held)
    return Found(f"{user} has {held}", tuple(warnings))


def _records(settings: Settings) -> Found:
    from worker.clock import SystemClock
    from worker.core.sampling import Sample
    from worker.kafka_io.newest import newest

    sample = Sample(settings.input)
    for record in newest(settings, _SAMPLED, SystemClock()):
        sample.note(record)
    told, limit = sample.summary(), settings.max_unreadable_ratio
    if sample.unreadable_share > limit:
        raise Fatal(f"{told} A worker stops at such a share (max_unreadable_ratio is {limit:g})")
    return Found(f"{sample.records} looked at", (told,)) if sample.doubtful else Found(told)


def _model(settings: Settings) -> Found:
    from worker.inference.loading import load

    _, classifier = load(settings.model, settings.batch.forward_tokens)
    card = classifier.card
    labels = [excerpt(label, _LABEL) for label in card.labels[:_LABELS]]
    if len(card.labels) > _LABELS:
        labels.append(f"and {len(card.labels) - _LABELS:,} more")
    return Found(
        f"{card.name} ({card.revision}) says {', '.join(labels)}; up to {card.max_tokens} "
        f"tokens, {card.engine}, {card.dtype} on {card.device}",
        _of_results(settings, card),
    )


def _of_results(settings: Settings, card: ModelCard) -> tuple[str, ...]:
    """A warning where they may not fit their topic. A missing topic has its own part."""
    from worker.runtime.topics import result_size_warning

    try:
        topics = _there(settings)
    except (Fatal, BrokerAway):
        return ()
    said = result_size_warning(settings, topics, card)
    return (said,) if said else ()
