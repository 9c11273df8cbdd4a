"""Asks a schema registry for `streamlabel check`, and registers nothing.

Owns: nothing; each function closes what it opens.
Thread: main; a call waits for the registry.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from worker.clock import Clock
from worker.core.formats.format import SchemaPending
from worker.core.records import RawRecord
from worker.core.sampling import Sample
from worker.errors import SchemaRefused
from worker.metrics import Metrics
from worker.registry.assembly import RegistryParts
from worker.registry.client import PathMissing, RegistryClient
from worker.registry.results import FORMATS
from worker.registry.subjects import subject_of
from worker.settings import Settings, result_form


def check_registry(settings: Settings, outputs: Iterable[str], clock: Clock) -> str:
    """Ask whether the registry answers, and whether it would take the schema of results.

    Args:
        settings: of the worker.
        outputs: the topics of results.
        clock: times the requests.

    Returns:
        The findings, in words.

    Raises:
        RegistryAway: it does not answer.
        SchemaRefused: it refuses the schema of results, or the sign-in.
    """
    with closing(RegistryClient(settings.registry, Metrics(), clock)) as client:
        client.check()
        findings = [f"{settings.registry.url} answers"]
        if settings.output.format in FORMATS and settings.output.mode != "enrich":
            findings += [_results(settings, client, topic) for topic in outputs]
    return "; ".join(findings)


def _results(settings: Settings, client: RegistryClient, topic: str) -> str:
    registry = settings.registry
    schema = FORMATS[settings.output.format](form=result_form(settings)).schema
    subject = subject_of(schema, topic, registry.subject_name_strategy)
    number = client.look_up(subject, schema)
    if number is not None:
        return f"the schema of results is under subject {subject!r}, with id {number}"
    if not registry.register:
        raise SchemaRefused(
            f"subject {subject!r} does not have the schema of results, and registry.register is "
            "false: register it there, or set registry.register = true"
        )
    outcome = f"the schema of results will be registered under subject {subject!r}"
    try:
        refusal = client.refusal(subject, schema)
    except PathMissing as error:
        return f"{outcome}, if it is compatible with it, which could not be asked: {error}"
    if refusal:
        raise SchemaRefused(
            f"subject {subject!r} does not take the schema of results: {refusal}. Change the "
            "subject's compatibility level, or set another registry.subject_name_strategy or "
            "output.topic"
        )
    return outcome


def sample_by_schema(settings: Settings, records: Iterable[RawRecord], clock: Clock) -> Sample:
    """Return a sample of records whose schemas a registry has.

    Raises:
        RegistryAway: the registry does not answer for a record's schema.
    """
    plain = settings.output.model_copy(update={"mode": "classification", "format": "json"})
    parts = RegistryParts(settings.model_copy(update={"output": plain}), Metrics(), clock)
    sample = Sample(settings.input, parts.values)
    with parts:
        for record in records:
            _note(record, sample, parts)
    return sample


def _note(record: RawRecord, sample: Sample, parts: RegistryParts) -> None:
    while True:
        try:
            return sample.note(record)
        except SchemaPending as pending:
            parts.wait(pending.schema)
