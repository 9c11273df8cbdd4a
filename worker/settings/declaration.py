"""`Settings`: the sections, what stands outside of them, and what contradicts itself.

Values come in as layers, strongest first (see `origins`). Imports the sections
and `files`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, Literal, Self

from pydantic import Field, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from worker.settings.files import has_encrypted_key
from worker.settings.sections import (
    BatchSettings,
    CacheSettings,
    DriftSettings,
    HttpSettings,
    InputSettings,
    KafkaSettings,
    LogSettings,
    ModelSettings,
    OutputSettings,
    TracingSettings,
)
from worker.settings.topics import WorkerTopics

_KAFKAS_OWN = (
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
    "__cluster_metadata",
)
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

_SMALLEST_CACHE = 100_000  # bytes
_SMALLEST_REFERENCE = 100  # records


class _Chosen(PydanticBaseSettingsSource):
    """One origin of values, already read into a nested dict."""

    def __init__(self, settings_cls: type[BaseSettings], values: dict[str, Any]) -> None:
        super().__init__(settings_cls)
        self._values = values

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002
        return self._values.get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return self._values


class Settings(BaseSettings):
    """Everything that can be set. Sections are TOML tables and prefixes of flags."""

    model_config = {"extra": "forbid", "frozen": True, "validate_default": True}

    kafka: KafkaSettings = KafkaSettings()
    input: InputSettings = InputSettings()
    output: OutputSettings = OutputSettings()
    model: ModelSettings = ModelSettings()
    batch: BatchSettings = BatchSettings()
    cache: CacheSettings = CacheSettings()
    drift: DriftSettings = DriftSettings()
    http: HttpSettings = HttpSettings()
    tracing: TracingSettings = TracingSettings()
    log: LogSettings = LogSettings()

    delivery: Literal["at_least_once", "exactly_once"] = Field(
        "at_least_once",
        description="`exactly_once` puts results, dead letters and offsets in one transaction, "
        "for readers with `read_committed`.",
    )
    processes: int = Field(
        1,
        ge=1,
        le=256,
        description="Worker processes on this machine, watched and started again by one parent, with "
        "one address for metrics and health; the model's threads are divided among them.",
    )
    create_topics: bool = Field(False, description="Create missing topics at start.")
    commit_interval: float | None = Field(
        None,
        gt=0,
        le=60,
        description="Seconds between commits of the group's offsets; in `exactly_once` how long a "
        "transaction stays open for more results, which readers wait for. Default: 0.5, and 0.1 "
        "in `exactly_once`.",
    )
    transaction_timeout: float = Field(
        10.0,
        ge=1,
        le=900,
        description="Seconds until the broker aborts a dead worker's transaction.",
    )
    max_inflight_records: int = Field(
        2_048,
        ge=1,
        description="Records that were polled and can't be committed yet: in flight, or "
        "acknowledged behind an older one in flight. At it, polling pauses.",
    )
    max_inflight_bytes: int = Field(
        64_000_000,
        ge=1,
        description="Bytes of these records. At it, polling pauses. A compressed record of more is "
        "not read whole, and becomes a dead letter.",
    )
    max_consecutive_dead_letters: int = Field(
        100,
        ge=1,
        description="Records in a row that fail in the model, or whose results the output topic "
        "refuses, until the worker stops. Unreadable records don't count.",
    )
    max_dead_letter_ratio: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of the last 1,000 records that may fail in the model, or at the output "
        "topic; above it the worker stops. 1 turns this off. Unreadable records don't count.",
    )
    max_unreadable_ratio: float = Field(
        0.9,
        ge=0,
        le=1,
        description="Share of the last 1,000 records, at least 100, that may be unreadable for one "
        "reason; above it the worker stops. Unreadable records in a row wait for that, ten seconds "
        "at most. 1 turns this off. Records without a value don't count.",
    )
    shutdown_timeout: float = Field(
        30.0, gt=0, le=3600, description="Seconds to drain, commit and leave the group at a stop."
    )
    rebalance_drain_timeout: float = Field(
        20.0, gt=0, le=3600, description="Seconds to drain partitions that move to another worker."
    )
    stall_timeout: float = Field(
        120.0,
        gt=0,
        description="Seconds that whoever holds work (a stage, a forward pass, the broker's "
        "acknowledgement, a commit) may go without a step until /livez is red.",
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
        """The origins, strongest first, as `load` put them into the initialiser."""
        layers: list[dict[str, Any]] = init_settings().get("layers", [])
        return tuple(_Chosen(settings_cls, layer) for layer in layers)

    @property
    def topics(self) -> WorkerTopics:
        """Every topic of this worker."""
        output = self.output
        return WorkerTopics((self.input.topic,), output.topic, output.dead_letter_topic)

    @property
    def commit_every(self) -> float:
        """`commit_interval` or its default."""
        return self.commit_interval or (0.1 if self.delivery == "exactly_once" else 0.5)

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _contradictions(s: Settings) -> Iterator[str]:
    """Values that can't be meant, alone or beside another one."""
    yield from _topic_contradictions(s)
    if s.output.mode == "enrich" and s.input.format == "text":
        yield 'output.mode = "enrich" needs input.format = "json": plain text has no object to add to'
    if s.batch.max_records > s.max_inflight_records:
        yield (
            f"batch.max_records ({s.batch.max_records}) is more than max_inflight_records "
            f"({s.max_inflight_records}): such a batch could never fill"
        )
    if s.input.max_bytes > s.max_inflight_bytes:
        yield (
            f"input.max_bytes ({s.input.max_bytes}) is more than max_inflight_bytes "
            f"({s.max_inflight_bytes})"
        )
    if s.batch.forward_tokens and (s.model.max_tokens or 0) > s.batch.forward_tokens:
        yield (
            f"model.max_tokens ({s.model.max_tokens}) is more than batch.forward_tokens "
            f"({s.batch.forward_tokens}): one longest text would not fit a forward pass"
        )
    if s.commit_every >= s.stall_timeout:
        yield (
            f"commit_interval ({s.commit_every:g}) must be below stall_timeout "
            f"({s.stall_timeout:g}): offsets that wait for their commit would look like a stall"
        )
    if s.rebalance_drain_timeout >= s.kafka.max_poll_interval:
        yield (
            f"rebalance_drain_timeout ({s.rebalance_drain_timeout:g}) must be below "
            f"kafka.max_poll_interval ({s.kafka.max_poll_interval:g})"
        )
    if s.kafka.session_timeout > s.kafka.max_poll_interval:
        yield (
            f"kafka.session_timeout ({s.kafka.session_timeout:g}) is more than "
            f"kafka.max_poll_interval ({s.kafka.max_poll_interval:g})"
        )
    if s.delivery == "exactly_once" and s.commit_every > s.transaction_timeout / 2:
        yield (
            f"commit_interval ({s.commit_every:g}) must be at most half of transaction_timeout "
            f"({s.transaction_timeout:g}): the broker would abort what waits for company"
        )
    yield from _cache_contradictions(s.cache)
    yield from _drift_contradictions(s.drift)
    yield from _security_contradictions(s.kafka)
    yield from _http_contradictions(s.http)


def _topic_contradictions(s: Settings) -> Iterator[str]:
    topics = {
        "input.topic": s.input.topic,
        "output.topic": s.output.topic,
        "output.dead_letter_topic": s.output.dead_letter_topic,
    }
    if len(set(topics.values())) < len(topics):
        listed = ", ".join(f"{path} = {value!r}" for path, value in topics.items())
        yield f"the three topics must differ ({listed})"
    for path, name in topics.items():
        if name in (".", ".."):
            yield f"{path} = {name!r} can't be a topic's name in Kafka"
        elif name in _KAFKAS_OWN:
            yield f"{path} = {name!r} is a topic of Kafka itself: choose another name"


def _cache_contradictions(c: CacheSettings) -> Iterator[str]:
    if 0 < c.max_bytes < _SMALLEST_CACHE:
        yield (
            f"cache.max_bytes ({c.max_bytes}) would hold hardly a text: give it at least "
            f"{_SMALLEST_CACHE}, or 0 for no cache"
        )


def _drift_contradictions(d: DriftSettings) -> Iterator[str]:
    if 0 < d.reference_records < _SMALLEST_REFERENCE:
        yield (
            f"drift.reference_records ({d.reference_records}) is too few to tell a shift from "
            f"chance: give at least {_SMALLEST_REFERENCE}, or 0 for no comparison"
        )


def _http_contradictions(h: HttpSettings) -> Iterator[str]:
    token = h.token.get_secret_value() if h.token else "-"
    if not (token.isascii() and token.isprintable()) or " " in token:
        yield "http.token can't be sent: give it letters, digits and signs of ASCII, and no space"
    if h.show_texts and not h.page:
        yield "http.show_texts needs http.page: nothing else shows texts"


def _security_contradictions(k: KafkaSettings) -> Iterator[str]:
    sasl = ("sasl_mechanism", "sasl_username", "sasl_password")
    given = [f"kafka.{name}" for name in sasl if getattr(k, name)]
    missing = [f"kafka.{name}" for name in sasl if not getattr(k, name)]
    if k.security_protocol.startswith("SASL"):
        if missing:
            yield f"kafka.security_protocol = {k.security_protocol!r} needs {', '.join(missing)}"
    elif given:
        yield (
            f"{', '.join(given)} set, but kafka.security_protocol = {k.security_protocol!r}: use "
            "SASL_SSL or SASL_PLAINTEXT"
        )
    files = [f"kafka.{name}" for name in ("ssl_cafile", "ssl_certfile") if getattr(k, name)]
    if files and not k.security_protocol.endswith("SSL"):
        yield (
            f"{', '.join(files)} set, but kafka.security_protocol = {k.security_protocol!r}: use "
            "SSL or SASL_SSL"
        )
    for name in ("ssl_keyfile", "ssl_key_password"):
        if getattr(k, name) and not k.ssl_certfile:
            yield f"kafka.{name} needs kafka.ssl_certfile"
    for name in ("ssl_keyfile", "ssl_certfile"):
        file = getattr(k, name)
        if file and not k.ssl_key_password and has_encrypted_key(file):
            yield f"the key in kafka.{name} = {file} is encrypted: set kafka.ssl_key_password"
