"""All options of a worker: the sections, and the options outside them.

Owns: `Settings`, `FIRST_OPTIONS`, the order of layers (see `origins`).
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from worker.settings.contradictions import PLAIN_FORMATS, contradictions
from worker.settings.decision import DecisionSettings
from worker.settings.kafka_client import KafkaSettings
from worker.settings.models import NAMES_SCHEMA, Models
from worker.settings.prepare import PrepareSettings
from worker.settings.registry import RegistrySettings
from worker.settings.routes import Routes, known_topics
from worker.settings.sections import (
    BatchSettings,
    CacheSettings,
    DriftSettings,
    HttpSettings,
    InputSettings,
    LogSettings,
    ModelSettings,
    OutputSettings,
    TracingSettings,
)
from worker.settings.shadow import ShadowSettings
from worker.settings.toml_values import FrozenTable
from worker.settings.topics import WorkerTopics

# The options that people need first, in the order in which help and docs show them.
FIRST_OPTIONS: Final[tuple[str, ...]] = (
    "kafka.bootstrap_servers",
    "kafka.group_id",
    "input.topic",
    "input.text_path",
    "output.topic",
    "output.dead_letter_topic",
    "model.name",
    "delivery",
    "processes",
    "http.port",
)


class _Layer(PydanticBaseSettingsSource):
    """The values of one origin, already read into a nested dict."""

    def __init__(self, settings_cls: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


class Settings(BaseSettings):
    """All options. Sections are TOML tables and prefixes of flags."""

    model_config = {"extra": "forbid", "frozen": True, "validate_default": True}

    kafka: KafkaSettings = KafkaSettings()
    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()
    registry: RegistrySettings = RegistrySettings()
    model: ModelSettings = ModelSettings()
    prepare: PrepareSettings = PrepareSettings()
    decision: DecisionSettings = DecisionSettings()
    shadow: ShadowSettings = ShadowSettings()
    batch: BatchSettings = BatchSettings()
    cache: CacheSettings = CacheSettings()
    drift: DriftSettings = DriftSettings()
    http: HttpSettings = HttpSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()

    models: Models = Field(
        FrozenTable(),
        description="Several models that label each record, instead of `[model]`: a table "
        "`[models.NAME]` for each. Threads, lanes and directories are those of `[model]`. A result "
        "has the models' own results by their names.",
        json_schema_extra=NAMES_SCHEMA,
    )
    routes: Routes = Field(
        (),
        description="Routes of results to topics, by label, score and fields of the record. The first "
        "that matches wins. A result that no route matches goes to `output.topic`.",
    )
    delivery: Literal["at_least_once", "exactly_once"] = Field(
        "at_least_once",
        description="Delivery guarantee. `exactly_once` commits results, dead letters and offsets in "
        "one Kafka transaction; readers need `read_committed`.",
    )
    processes: int = Field(
        1,
        ge=1,
        le=256,
        description="Worker processes on this machine. One parent restarts them and serves metrics "
        "and health at one address. The model's threads are divided among them.",
    )
    profile: Path | None = Field(
        None,
        description="File for a trace of each micro-batch's way through the threads. It has Chrome's "
        "format, for https://ui.perfetto.dev, and no text of a record. It is replaced at start and "
        "ends at 64 MB. With `processes`, each has its own: FILE.0, FILE.1 and so on.",
    )
    create_topics: bool = Field(False, description="Create missing topics at start.")
    wait_for_topics: bool = Field(
        False,
        description="At start, wait for missing topics instead of exiting. /readyz and the log name "
        "them, and the model loads meanwhile.",
    )
    commit_interval: float | None = Field(
        None,
        gt=0,
        le=60,
        description="Seconds between commits of the group's offsets. With `exactly_once`, how long a "
        "transaction stays open and delays readers. Default: 0.5, or 0.1 with `exactly_once`.",
    )
    transaction_timeout: float = Field(
        10.0,
        ge=1,
        le=900,
        description="Seconds until the broker aborts the transaction of a dead worker.",
    )
    max_inflight_records: int = Field(
        2_048,
        ge=1,
        description="Maximum polled records that can't be committed yet. They are in flight, or "
        "acknowledged behind an older record in flight. At the limit, polling pauses.",
    )
    max_inflight_bytes: int = Field(
        64_000_000,
        ge=1,
        description="Maximum bytes of polled records that can't be committed yet. At the limit, polling "
        "pauses. A compressed record that unpacks to more becomes a dead letter, without being "
        "read whole.",
    )
    max_consecutive_dead_letters: int = Field(
        100,
        ge=1,
        description="Failed records in a row that stop the worker. A record fails in the model, or "
        "is refused by an output topic. Each output topic is counted alone too. Unreadable records "
        "don't count.",
    )
    max_dead_letter_ratio: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the last 1,000 records that may fail; above it the worker stops. A "
        "record fails in the model, or is refused by an output topic. Each output topic is counted "
        "alone too. Unreadable records don't count. 1 turns the check off.",
    )
    max_unreadable_ratio: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Share of the last 1,000 records that may be unreadable for one reason. Above it, "
        "and after at least 100 records, the worker stops. A run of unreadable records is held back "
        "until the share is known, ten seconds at most. Records without a value don't count. 1 turns "
        "the check off.",
    )
    shutdown_timeout: float = Field(
        30.0,
        gt=0,
        le=3600,
        description="Seconds to drain, commit and leave the group when the worker stops.",
    )
    rebalance_drain_timeout: float = Field(
        20.0,
        gt=0,
        le=3600,
        description="Seconds to drain partitions that move to another worker.",
    )
    stall_timeout: float = Field(
        120.0,
        gt=0,
        description="Seconds without progress until /livez fails. They count while records are in a "
        "stage or a forward pass, or wait for an acknowledgement or a commit.",
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - the library's signature
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Return the layers that `load` passed to the initialiser, strongest first."""
        layers: list[dict[str, Any]] = init_settings().get("layers", [])
        return tuple(_Layer(settings_cls, layer) for layer in layers)

    @property
    def topics(self) -> WorkerTopics:
        """Every topic of this worker; with a pattern, the inputs are not known yet."""
        source, output = self.input, self.output
        inputs = () if source.topic_pattern else source.topics or (source.topic,)
        return WorkerTopics(
            inputs,
            output.topic,
            output.dead_letter_topic,
            source.topic_pattern,
            known_topics(self.routes),
            output.filtered_topic,
        )

    @property
    def needs_registry(self) -> bool:
        """True if the input or the output has a format whose schemas are in a registry."""
        return not {self.input.format, self.output.format} <= PLAIN_FORMATS

    @property
    def commit_every(self) -> float:
        """Seconds between commits: `commit_interval` or its default."""
        return self.commit_interval or (0.1 if self.delivery == "exactly_once" else 0.5)

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        problems = list(contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self
