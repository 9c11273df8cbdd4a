"""Builds what a worker needs of a schema registry.

Owns: the registry's client, and the thread that asks for schemas.
Thread: the main thread; the parts name their own.
Must not import: kafka_io, runtime, inference.
"""

from __future__ import annotations

from collections.abc import Hashable
from contextlib import closing, suppress
from typing import Final, Self

from worker.clock import Clock
from worker.errors import RegistryAway
from worker.metrics import Metrics
from worker.registry.client import RegistryClient
from worker.registry.compile import compile_schema
from worker.registry.enrich import Enrichment
from worker.registry.formats import RegistryFormat
from worker.registry.results import FORMATS
from worker.registry.store import SchemaStore
from worker.registry.subjects import OutputSchemas
from worker.settings import PLAIN_FORMATS, Settings, result_form

_LOOK: Final = 0.02  # seconds between looks for an answer
_CHECK_TIMEOUT: Final = 3.0  # seconds; the records ask with the timeout of the settings


class RegistryParts:
    """The formats of one worker that need a registry. Leaving its `with` block closes them.

    Args:
        settings: name the formats; `Settings.needs_registry` is true.
        metrics, clock: of the worker.

    Attributes:
        values: parses the input; None if its format is plain.
        results: serialises results; None if their format is plain.

    Raises:
        SettingsError: an address, a TLS file or a proxy of the environment can't be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics, clock: Clock) -> None:
        self._settings, self._metrics, self._clock = settings.registry, metrics, clock
        registry, output = settings.registry, settings.output
        self._client = RegistryClient(registry, metrics, clock)
        form = result_form(settings)
        frame = OutputSchemas(self._client, registry).frame
        self.results = FORMATS[output.format](frame, form) if output.format in FORMATS else None
        self._outputs = settings.topics.all_results
        self._enriches = output.mode == "enrich"
        routed = [topic for _, topic in settings.topics.routed]
        self._store = self.values = None
        if settings.input.format not in PLAIN_FORMATS:
            self._store = SchemaStore(
                self._client,
                compile_schema,
                size=registry.cache_schemas,
                metrics=metrics,
                clock=clock,
                enrich=Enrichment(frame, output.topic, form, routed) if self._enriches else None,
            )
            self.values = RegistryFormat(settings.input.format, self._store)

    def away(self) -> str | None:
        """Return the registry's failure while a record waits for it, or None."""
        return self._store.away() if self._store else None

    def wait(self, schema: Hashable) -> None:
        """Wait until a record that raised SchemaPending can be parsed, or rejected.

        Raises:
            RegistryAway: the registry does not answer.
        """
        while self.values and not self.values.settled(schema):
            if reason := self.away():
                raise RegistryAway(reason)
            self._clock.sleep(_LOOK)

    def register(self) -> None:
        """Register the schema of results that go to the topics of the settings.

        Without results to register, a registry that is away is left to the records that need it.

        Raises:
            RegistryAway: the registry does not answer; call again.
            SchemaRefused: it refuses the schema or the worker, or the address is that of another
                server.
        """
        for topic in self._outputs:
            self.add_output(topic)
        if self.results is None or self._enriches:
            timeout = min(self._settings.timeout, _CHECK_TIMEOUT)
            hasty = self._settings.model_copy(update={"timeout": timeout})
            client = RegistryClient(hasty, self._metrics, self._clock)
            with closing(client), suppress(RegistryAway):
                client.check()

    def add_output(self, topic: str) -> None:
        """Register the schema of results that go to a topic, before its first result.

        Enriched schemas follow with their first records.

        Raises:
            RegistryAway, SchemaRefused: as `register`.
        """
        if self.results is not None and not self._enriches:
            self.results.add(topic)

    def __enter__(self) -> Self:
        if self._store is not None:
            self._store.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and close the connections."""
        if self._store is not None:
            self._store.close()
        self._client.close()
