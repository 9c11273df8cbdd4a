"""Builds what a worker needs of a schema registry.

Owns: the registry's client, and the thread that asks for schemas.
Thread: the main thread; the parts name their own.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from typing import Self

from worker.clock import Clock
from worker.core.formats.format import Format, ResultFormat
from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.registry.compile import CompiledSchema, compile_schema
from worker.registry.enrich import Enrichment
from worker.registry.formats import RegistryFormat
from worker.registry.results import FORMATS, FramedResults
from worker.registry.store import SchemaStore
from worker.registry.subjects import OutputSchemas
from worker.settings import Settings


class RegistryParts:
    """The formats of one worker that need a registry. Leaving its `with` block closes them.

    Args:
        settings: name the formats; `Settings.needs_registry` is true.
        metrics, clock: of the worker.

    Attributes:
        values: parses the input; None if its format is plain.
        results: serialises results; None if their format is plain.
        store: the schemas of the input; None if its format is plain.

    Raises:
        SettingsError: a TLS file can't be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        self._client = RegistryClient(settings.registry, metrics, clock)
        self._schemas = OutputSchemas(self._client, settings.registry)
        self._topic = settings.topics.output
        self._enriches = settings.output.mode == "enrich"
        self.results = self._results(settings)
        self.store = self._store(settings, metrics, clock)
        self.values = RegistryFormat(settings.input.format, self.store) if self.store else None

    def register(self) -> None:
        """Register the schema of results. Enriched schemas follow with their first records.

        Raises:
            RegistryAway: the registry does not answer; call again.
            SchemaRefused: it refuses the schema, or the worker.
        """
        if self.results is not None and not self._enriches:
            self.results.add(self._topic)

    def __enter__(self) -> Self:
        if self.store is not None:
            self.store.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.store is not None:
            self.store.close()
        self._client.close()
