"""Reads results in any format, for commands that may wait for the schema registry.

Owns: nothing; `result_parser` closes what it opens.
Thread: main, of a command.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from worker.clock import SystemClock
from worker.core.formats.format import SchemaPending
from worker.core.formats.plain_json import JsonFormat
from worker.core.records import Headers
from worker.metrics import Metrics
from worker.registry.assembly import RegistryParts
from worker.settings import Settings

ParseResult = Callable[[bytes, Headers, str], Any]


@contextmanager
def result_parser(settings: Settings) -> Iterator[ParseResult]:
    """Give a function that returns the object in a result's value.

    The format is found in each value: a topic may have results of several. The function waits for
    a schema that it does not know, and raises:

    * RecordRejected: the value has no object.
    * RegistryAway: the registry does not answer.
    """
    readable = settings.model_copy(
        update={
            "input": settings.input.model_copy(update={"format": "auto"}),
            "output": settings.output.model_copy(
                update={"format": "json", "mode": "classification"}
            ),
        }
    )
    parts = RegistryParts(readable, Metrics(), SystemClock())

    def parse(value: bytes, headers: Headers, topic: str) -> Any:
        while True:
            try:
                return (parts.values or JsonFormat()).parse(value, headers, topic).payload
            except SchemaPending as pending:
                parts.wait(pending.schema)

    with parts:
        yield parse
