"""The checks behind `streamlabel check`: limits, broker, topics, rights, registry, records, model.

Owns: nothing; each check closes the connection that it opens.
Thread: main.
Must not import: torch, transformers or kafka; a check loads them when it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, NamedTuple

from worker.cli.named_topics import with_every_topic
from worker.core.counted import counted
from worker.errors import AccessDenied, BrokerAway, Fatal, StreamlabelError
from worker.settings import PLAIN_FORMATS, Settings

if TYPE_CHECKING:
    from worker.core.records import ModelCard, RawRecord
    from worker.core.sampling import Sample
    from worker.core.topics import TopicInfo

_SAMPLED = 20  # records of each partition


class Finding(NamedTuple):
    """The result of a check that passed, with warnings about what may still go wrong."""

    detail: str
    warnings: tuple[str, ...] = ()


class CheckResult(NamedTuple):
    """The result of a check, passed or failed."""

    name: str
    ok: bool
    detail: str
    warnings: tuple[str, ...]


Check = Callable[[Settings], Finding]


def concerned(settings: Settings) -> list[str]:
    """Return the names of the checks that concern these settings, in order."""
    return [name for name in CHECKS if name != "registry" or settings.needs_registry]


def attempt(name: str, settings: Settings) -> CheckResult:
    """Run one of `CHECKS`; an error that it raises becomes the detail of a failed verdict."""
    try:
        finding = CHECKS[name](settings)
    except StreamlabelError as error:
        return CheckResult(name, ok=False, detail=str(error), warnings=())
    return CheckResult(name, ok=True, detail=finding.detail, warnings=finding.warnings)


def limits(settings: Settings) -> Finding:
    """Tell the cores and the memory that a worker may use."""
    from worker.limits import as_mib, cpu_limit, memory_limit

    memory = memory_limit()
    among = f" for {settings.processes} processes" if settings.processes > 1 else ""
    bound = "no memory limit" if memory is None else f"memory limit {as_mib(memory)}"
    return Finding(f"{cpu_limit()}; {bound}{among}")


def broker(settings: Settings) -> Finding:
    """Connect to the cluster."""
    from worker.kafka_io.admin import Admin

    with Admin(settings.kafka) as admin:
        return Finding(
            f"{settings.kafka.bootstrap_servers} answers", tuple(admin.unreachable_brokers())
        )


def topics(settings: Settings) -> Finding:
    """Look for each topic, and compare their configurations."""
    from worker.runtime.topics import suitability_warnings

    settings = with_every_topic(settings)
    infos = _infos(settings)
    sizes = (f"{name} ({counted(info.partitions, 'partition')})" for name, info in infos.items())
    return Finding(", ".join(sizes), tuple(suitability_warnings(settings, infos)))


def _infos(settings: Settings) -> dict[str, TopicInfo]:
    from worker.runtime.topics import require

    return require(settings.model_copy(update={"create_topics": False}))


def rights(settings: Settings) -> Finding:
    """Try every right that a worker needs."""
    from worker.clock import SystemClock
    from worker.kafka_io.rights import try_rights

    rights = try_rights(with_every_topic(settings), SystemClock())
    user = settings.kafka.sasl_username or "this client"
    missing = [right for right in rights if right.held is False]
    if needed := [right.words for right in missing if right.needed]:
        raise AccessDenied(f"{user} lacks {', '.join(needed)}: grant that")
    warnings = []
    if missing:
        names = ", ".join(right.words for right in missing)
        warnings.append(
            f"{user} lacks {names}: the worker learns the limits of these topics only when they "
            "refuse a record"
        )
    if unknown := [right.words for right in rights if right.held is None]:
        warnings.append(f"the broker does not report whether {user} has {', '.join(unknown)}")
    held = ", ".join(right.words for right in rights if right.held)
    return Finding(f"{user} has {held}", tuple(warnings))


def registry(settings: Settings) -> Finding:
    """Ask the schema registry, and compare the schema of results with what it has."""
    from worker.clock import SystemClock
    from worker.kafka_io.admin import resolved
    from worker.runtime.formats import require_packages

    require_packages(settings)
    from worker.registry.check import check_registry

    outputs = resolved(with_every_topic(settings)).all_results
    return Finding(check_registry(settings, outputs, SystemClock()))


def records(settings: Settings) -> Finding:
    """Look for the text in the newest records of the input."""
    from worker.clock import SystemClock
    from worker.kafka_io.newest import newest

    sample = _sample(settings, newest(settings, _SAMPLED, SystemClock()))
    summary, limit = sample.summary(), settings.max_unreadable_ratio
    if sample.unreadable_share > limit:
        raise Fatal(f"{summary} A worker stops above max_unreadable_ratio = {limit:g}.")
    if sample.doubtful:
        return Finding(f"{counted(sample.records, 'record')} sampled", (summary,))
    return Finding(summary)


def _sample(settings: Settings, records: Iterable[RawRecord]) -> Sample:
    from worker.clock import SystemClock
    from worker.core.sampling import Sample
    from worker.runtime.formats import require_packages

    if settings.input.format not in PLAIN_FORMATS:
        require_packages(settings)
        from worker.registry.check import sample_by_schema

        return sample_by_schema(settings, records, SystemClock())
    sample = Sample(settings.input)
    for record in records:
        sample.note(record)
    return sample


def model(settings: Settings) -> Finding:
    """Load each model, which also compares its engine with the reference."""
    from worker.cli.model_verdict import load_described

    card, told, hints = load_described(settings)
    return Finding(told, (*_warnings_of_results(settings, card), *hints))


def _warnings_of_results(settings: Settings, card: ModelCard) -> tuple[str, ...]:
    """Return a warning if results may be too large for their topic."""
    from worker.runtime.topics import result_size_warning

    try:
        infos = _infos(settings)
    except (Fatal, BrokerAway):  # the check of the topics reports it
        return ()
    warning = result_size_warning(settings, infos, card)
    return (warning,) if warning else ()


CHECKS: dict[str, Check] = {
    "limits": limits,
    "broker": broker,
    "topics": topics,
    "rights": rights,
    "registry": registry,
    "records": records,
    "model": model,
}
