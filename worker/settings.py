"""Every option: type, bound, default, description; where each value came from.

One declaration serves flags, environment, TOML file, `check` and the README's table. The only
module that reads `os.environ`. Runs once, on the main thread, before anything else; imports no
room. Precedence: flags over environment over file over defaults.
"""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

from worker.errors import SettingsError

REFERENCE_MODEL = "distilbert-base-uncased-finetuned-sst-2-english"
ENV_PREFIX = "STREAMLABEL_"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def _named(flag: str | None = None, env: tuple[str, ...] = ()) -> dict[str, Any]:
    """Names for an option that differ from those made from its path."""
    return {"flag": flag, "env": list(env)}


class KafkaSettings(_Section):
    """How to reach the cluster, and as whom."""

    bootstrap_servers: str = Field(
        "localhost:9092",
        min_length=1,
        description="Brokers to ask first, `host:port`, comma-separated.",
        json_schema_extra=_named("--bootstrap-servers", ("KAFKA_BOOTSTRAP_SERVERS",)),
    )
    group_id: str = Field(
        "streamlabel",
        min_length=1,
        description="Consumer group; the workers of one group share the input's partitions.",
        json_schema_extra=_named("--group-id"),
    )
    group_instance_id: str | None = Field(
        None,
        min_length=1,
        description="Static membership: a name that is unique in the group and survives restarts.",
    )
    client_id: str = Field("streamlabel", description="Name in the broker's logs and quotas.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How the connection is secured."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="How the client proves who it is; needs a SASL protocol."
    )
    sasl_username: str | None = Field(None, description="User for SASL.")
    sasl_password: SecretStr | None = Field(
        None, description="Password for SASL. Prefer the environment: flags show in `ps`."
    )
    ssl_cafile: Path | None = Field(
        None, description="PEM file of the authority that signed the brokers' certificates."
    )
    ssl_certfile: Path | None = Field(None, description="PEM file of the client's certificate.")
    ssl_keyfile: Path | None = Field(None, description="PEM file of the client's private key.")
    session_timeout: float = Field(
        45.0, ge=1, le=1800, description="Seconds without heartbeat until a worker counts as dead."
    )
    max_poll_interval: float = Field(
        300.0, ge=1, le=86_400, description="Seconds between polls until a worker counts as stuck."
    )
    request_timeout: float = Field(
        30.0, ge=1, le=600, description="Seconds to wait for one answer of a broker."
    )
    empty_poll_pause_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Milliseconds to pause after an empty poll; 0 leaves the waiting to the "
        "broker. For brokers that answer an empty fetch at once.",
    )


class InputSettings(_Section):
    """What is read."""

    topic: str = Field("texts.in", min_length=1, description="Topic of texts.")
    format: Literal["json", "text"] = Field(
        "json", description="`json`: an object with the text in it. `text`: plain UTF-8."
    )
    text_path: str = Field(
        "text", min_length=1, description="Where the text lies in the object, dots between keys."
    )
    id_path: str = Field(
        "id", description="Where the producer's id lies in the object; it may be absent."
    )
    max_bytes: int = Field(
        1_000_000, ge=1, description="Largest value to decode, bytes; larger ones are dead letters."
    )
    overflow: Literal["truncate", "dead_letter"] = Field(
        "truncate", description="A text of more tokens than the model takes is cut, or refused."
    )
    start: Literal["earliest", "latest"] = Field(
        "earliest", description="Where a group without committed offsets begins."
    )


class OutputSettings(_Section):
    """What is published."""

    topic: str = Field("texts.labelled", min_length=1, description="Topic of results.")
    mode: Literal["classification", "enrich"] = Field(
        "classification",
        description="`classification`: the result alone. `enrich`: the input object with the "
        "result as its member `classification`.",
    )
    dead_letter_topic: str = Field(
        "texts.dead", min_length=1, description="Topic of records that could not be labelled."
    )
    compression: Literal["none", "gzip"] = Field(
        "none", description="Compression of published batches."
    )


class ModelSettings(_Section):
    """Which model, and how it runs."""

    name: str = Field(
        REFERENCE_MODEL,
        min_length=1,
        description="Hub id, directory, or `bundled` (small, English, needs no hub).",
        json_schema_extra=_named("--model", ("STREAMLABEL_MODEL",)),
    )
    revision: str | None = Field(None, description="Hub commit, tag or branch.")
    max_tokens: int | None = Field(
        None, ge=3, description="Longest text, tokens; default: what the model takes."
    )
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")
    dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Arithmetic; `auto` is bfloat16 where the processor computes in it, else "
        "float32.",
    )
    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of the model on a CPU; default: all cores."
    )
    cache_dir: Path = Field(
        Path("~/.cache/streamlabel"), description="Where prepared models and samples are kept."
    )


class BatchSettings(_Section):
    """When a micro-batch closes, and how it is cut for the model."""

    max_records: int = Field(128, ge=1, le=100_000, description="Records in a micro-batch.")
    max_tokens: int = Field(
        8_192, ge=1, description="Tokens in a micro-batch, estimated from the texts' bytes."
    )
    max_delay_ms: float = Field(
        20.0, ge=0, le=60_000, description="Milliseconds that the first record waits for mates."
    )
    forward_tokens: int = Field(
        4_096, ge=16, description="Tokens in one forward pass, padding included."
    )


class HttpSettings(_Section):
    """Metrics and health."""

    enabled: bool = Field(True, description="Serve /metrics, /livez and /readyz.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in a container.")
    port: int = Field(9100, ge=0, le=65_535, description="Port to listen on; 0 picks a free one.")


class LogSettings(_Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is written."
    )
    format: Literal["auto", "json", "plain"] = Field(
        "auto", description="`auto`: plain where standard error is a terminal, else JSON."
    )


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
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    delivery: Literal["at_least_once", "exactly_once"] = Field(
        "at_least_once",
        description="`exactly_once` puts results, dead letters and offsets in one transaction, "
        "for readers with `read_committed`.",
    )
    create_topics: bool = Field(False, description="Create missing topics at start.")
    commit_interval: float = Field(
        0.5, gt=0, le=60, description="Seconds between commits of the group's offsets."
    )
    transaction_timeout: float = Field(
        10.0,
        ge=1,
        le=900,
        description="Seconds until the broker aborts a dead worker's transaction.",
    )
    max_inflight_records: int = Field(
        2_048, ge=1, description="Records between poll and acknowledgement; at it, polling pauses."
    )
    max_inflight_bytes: int = Field(
        64_000_000, ge=1, description="Bytes between poll and acknowledgement; likewise."
    )
    max_consecutive_dead_letters: int = Field(
        100, ge=1, description="Records in a row that fail in the model until the worker stops."
    )
    shutdown_timeout: float = Field(
        30.0, gt=0, le=3600, description="Seconds to drain, commit and leave the group at a stop."
    )
    rebalance_drain_timeout: float = Field(
        20.0, gt=0, le=3600, description="Seconds to drain partitions that move to another worker."
    )
    stall_timeout: float = Field(
        120.0, gt=0, description="Seconds without progress, with work waiting, until /livez is red."
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

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        problems = list(_contradictions(self))
        if problems:
            raise ValueError("; ".join(problems))
        return self


def _contradictions(s: Settings) -> Iterator[str]:
    """Pairs of settings that can't both be meant."""
    topics = {
        "input.topic": s.input.topic,
        "output.topic": s.output.topic,
        "output.dead_letter_topic": s.output.dead_letter_topic,
    }
    if len(set(topics.values())) < len(topics):
        listed = ", ".join(f"{path} = {value!r}" for path, value in topics.items())
        yield f"the three topics must differ ({listed})"
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
    if s.model.max_tokens and s.model.max_tokens > s.batch.forward_tokens:
        yield (
            f"model.max_tokens ({s.model.max_tokens}) is more than batch.forward_tokens "
            f"({s.batch.forward_tokens}): one longest text would not fit a forward pass"
        )
    if s.rebalance_drain_timeout >= s.kafka.max_poll_interval:
        yield (
            f"rebalance_drain_timeout ({s.rebalance_drain_timeout:g}) must be below "
            f"kafka.max_poll_interval ({s.kafka.max_poll_interval:g})"
        )
    yield from _security_contradictions(s.kafka)


def _security_contradictions(k: KafkaSettings) -> Iterator[str]:
    sasl = k.security_protocol.startswith("SASL")
    if sasl and not (k.sasl_mechanism and k.sasl_username and k.sasl_password):
        yield (
            f"kafka.security_protocol = {k.security_protocol!r} needs kafka.sasl_mechanism, "
            "kafka.sasl_username and kafka.sasl_password"
        )
    if not sasl and (k.sasl_mechanism or k.sasl_username or k.sasl_password):
        yield (
            "kafka.sasl_* is set but kafka.security_protocol is "
            f"{k.security_protocol!r}: use SASL_SSL or SASL_PLAINTEXT"
        )
    if not k.security_protocol.endswith("SSL") and (k.ssl_cafile or k.ssl_certfile):
        yield (
            f"kafka.ssl_* is set but kafka.security_protocol is {k.security_protocol!r}: "
            "use SSL or SASL_SSL"
        )
    if k.ssl_keyfile and not k.ssl_certfile:
        yield "kafka.ssl_keyfile needs kafka.ssl_certfile"


@dataclass(frozen=True)
class Option:
    """One leaf of the declaration: its names in every origin."""

    path: str
    flag: str
    env: tuple[str, ...]
    field: FieldInfo

    @property
    def secret(self) -> bool:
        """Whether its value must never be shown."""
        return "SecretStr" in str(self.field.annotation)

    @property
    def is_switch(self) -> bool:
        """Whether its flag takes no value."""
        return self.field.annotation is bool


@cache
def options() -> tuple[Option, ...]:
    """Every option, sections first, in the order of the declaration."""
    found = []
    for name, field in Settings.model_fields.items():
        section = field.annotation
        if isinstance(section, type) and issubclass(section, _Section):
            found += [_option(f"{name}.{k}", f) for k, f in section.model_fields.items()]
        else:
            found.append(_option(name, field))
    return tuple(found)


def _option(path: str, field: FieldInfo) -> Option:
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    derived = ENV_PREFIX + path.upper().replace(".", "_")
    special: Any = extra.get("env") or ()
    own = tuple(name for name in special if name.startswith(ENV_PREFIX))
    foreign = tuple(name for name in special if not name.startswith(ENV_PREFIX))
    flag = extra.get("flag") or "--" + path.replace(".", "-").replace("_", "-")
    return Option(path, str(flag), (own or (derived,)) + foreign, field)


@dataclass(frozen=True)
class Loaded:
    """Settings in force, each option's origin, and what looked odd."""

    settings: Settings
    origins: Mapping[str, str]
    warnings: tuple[str, ...]


def load(
    flags: Mapping[str, Any] | None = None,
    config: Path | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read all origins and check them.

    Args:
        flags: option path -> value, for the flags that were given.
        config: a TOML file.
        environ: stands in for `os.environ`.

    Raises:
        SettingsError: one message that names each wrong setting, its value, bound and origin.
    """
    environ = os.environ if environ is None else environ
    layers = [
        {path: (value, _flag_of(path)) for path, value in (flags or {}).items()},
        _from_environment(environ),
        _from_file(config) if config else {},
    ]
    origins = {path: said[1] for layer in reversed(layers) for path, said in layer.items()}
    try:
        settings = Settings(layers=[_nested(layer) for layer in layers])  # type: ignore[call-arg]
    except ValidationError as error:
        raise SettingsError(_explain(error, origins)) from None
    return Loaded(settings, origins, tuple(_suspicious(environ)))


def _flag_of(path: str) -> str:
    return next((f"flag {o.flag}" for o in options() if o.path == path), "flag")


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for option in options():
        for name in option.env:
            if name in environ and option.path not in found:
                found[option.path] = (environ[name], f"environment {name}")
    return found


def _from_file(config: Path) -> dict[str, tuple[Any, str]]:
    try:
        document = tomllib.loads(config.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"can't read the settings file {config}: {error}") from None
    flat: dict[str, tuple[Any, str]] = {}
    for name, value in document.items():
        leaves = value.items() if isinstance(value, dict) else [("", value)]
        for key, leaf in leaves:
            flat[f"{name}.{key}" if key else name] = (leaf, f"file {config}")
    return flat


def _nested(layer: Mapping[str, tuple[Any, str]]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for path, (value, _) in layer.items():
        *section, key = path.split(".", 1)
        home = nested.setdefault(section[0], {}) if section else nested
        home[key] = value
    return nested


def _explain(error: ValidationError, origins: Mapping[str, str]) -> str:
    """One line a fault: setting, value, bound, origin, and the nearest name for an unknown one."""
    lines = []
    for fault in error.errors():
        path = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        if not path:
            lines += [part + _origins_named_in(part, origins) for part in message.split("; ")]
            continue
        shown = "" if any(o.secret and o.path == path for o in options()) else repr(fault["input"])
        if fault["type"] == "extra_forbidden":
            near = difflib.get_close_matches(path, [o.path for o in options()], n=1)
            message = "no such setting" + (f"; did you mean {near[0]}?" if near else "")
        lines.append(f"{path} = {shown}: {message} (from {origins.get(path, 'default')})")
    return "\n".join(lines)


def _origins_named_in(message: str, origins: Mapping[str, str]) -> str:
    """Where the settings that a contradiction names were set."""
    told = [f"{path} from {origin}" for path, origin in origins.items() if path in message]
    return f" ({', '.join(told)})" if told else ""


def _suspicious(environ: Mapping[str, str]) -> Iterator[str]:
    """Variables with our prefix that name no option: most likely misspelt."""
    known = {name for option in options() for name in option.env}
    for name in sorted(environ):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.85)
        if name.startswith(ENV_PREFIX) and name not in known and near:
            yield f"environment variable {name} is no setting; did you mean {near[0]}?"


def read_environment(name: str) -> str | None:
    """A variable that is no setting, for `demo` (the walls keep `os.environ` in this module)."""
    return os.environ.get(name)


def child_environment(**changes: str) -> dict[str, str]:
    """This process's environment for a child, with our own settings taken out, then `changes`."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(ENV_PREFIX)}
    return kept | changes
