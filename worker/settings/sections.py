"""The sections: each option's type, bound, default and description.

A section is a table of the TOML file and a prefix of flags and variables. Pydantic alone; any
thread may read the frozen values.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    FilePath,
    SecretStr,
    field_validator,
)

_HOST = r"([^\s,:\[\]/]+|\[[0-9a-fA-F:]+\])"
_LAST_PORT = 65_535
_TOPIC = r"^[A-Za-z0-9._-]{1,249}$"  # what Kafka allows
_PATH = r"^[^.]+(\.[^.]+)*$"

REFERENCE_MODEL = "distilbert-base-uncased-finetuned-sst-2-english"


def _listed(value: Any) -> Any:
    """Names in lower case; comma-separated, as flags and variables have them, or a list."""
    names = value.split(",") if isinstance(value, str) else value
    strings = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return [name.strip().lower() for name in names] if strings else value


HostName = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]*[a-z0-9])?$")]
HostNames = Annotated[tuple[HostName, ...], BeforeValidator(_listed)]


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


def named(flag: str | None = None, env: tuple[str, ...] = ()) -> dict[str, Any]:
    """Names for an option that differ from those made from its path."""
    return {"flag": flag, "env": list(env)}


class KafkaSettings(Section):
    """How to reach the cluster, and as whom."""

    bootstrap_servers: str = Field(
        "localhost:9092",
        description="Brokers to ask first, `host:port`, comma-separated or a TOML list.",
        json_schema_extra=named("--bootstrap-servers", ("KAFKA_BOOTSTRAP_SERVERS",)),
    )
    group_id: str = Field(
        "streamlabel",
        min_length=1,
        description="Consumer group; the workers of one group share the input's partitions.",
        json_schema_extra=named("--group-id"),
    )
    group_instance_id: str | None = Field(
        None,
        min_length=1,
        description="Static membership: a name that is unique in the group and survives restarts. "
        "With `processes`, each gets its number appended: `-0`, `-1`, ...",
    )
    client_id: str = Field(
        "streamlabel",
        description="Name in the broker's logs and quotas; with `processes`, likewise numbered.",
    )

    @field_validator("bootstrap_servers", mode="before")
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        servers = value.split(",") if isinstance(value, str) else value
        if not isinstance(servers, list) or not all(isinstance(one, str) for one in servers):
            return value  # the type is complained of
        servers = [server.strip() for server in servers]
        if not all(servers) or not servers:
            raise ValueError("names no broker, or has a comma too many: write host:port,host:port")
        for server in servers:
            if "://" in server:
                raise ValueError(f"{server!r} has a scheme: write host:port alone")
            if re.fullmatch(_HOST, server):
                raise ValueError(f"{server!r} has no port: write {server}:9092, or its port there")
            found = re.fullmatch(rf"{_HOST}:([0-9]{{1,5}})", server)
            if not found:
                raise ValueError(f"{server!r} is no host:port")
            if not 1 <= int(found[2]) <= _LAST_PORT:
                raise ValueError(f"{server!r} has no port from 1 to {_LAST_PORT}")
        return ",".join(servers)

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="How the connection is secured."
    )
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = Field(
        None, description="How the client proves who it is; needs a SASL protocol."
    )
    sasl_username: str | None = Field(None, description="User for SASL.")
    sasl_password: SecretStr | None = Field(
        None,
        description="Password for SASL. Prefer a file, or the environment: flags show in `ps`.",
    )
    ssl_cafile: FilePath | None = Field(
        None, description="PEM file of the authority that signed the brokers' certificates."
    )
    ssl_certfile: FilePath | None = Field(None, description="PEM file of the client's certificate.")
    ssl_keyfile: FilePath | None = Field(None, description="PEM file of the client's private key.")
    ssl_key_password: SecretStr | None = Field(
        None, description="Password of that key, where it is encrypted; likewise."
    )
    session_timeout: float = Field(
        45.0, ge=1, le=1800, description="Seconds without heartbeat until a worker counts as dead."
    )
    max_poll_interval: float = Field(
        300.0, ge=1, le=86_400, description="Seconds between polls until a worker counts as stuck."
    )
    request_timeout: float = Field(
        30.0, ge=1, le=600, description="Seconds to wait for one answer of a broker."
    )
    metadata_max_age: float = Field(
        30.0,
        ge=1,
        le=3600,
        description="Seconds until a client asks again for topics, partitions and brokers, unless an "
        "error makes it ask earlier. So long may it take until added partitions are noticed.",
    )
    connections_max_idle: float = Field(
        180.0,
        ge=1,
        le=86_400,
        description="Seconds after which a connection that nobody uses is closed. Set it below what "
        "load balancers and brokers on the way allow: one that they drop in silence costs the next "
        "record `kafka.request_timeout`. Azure Event Hubs allows 240 and advises 180.",
    )
    tcp_keepalive: int = Field(
        60,
        ge=1,
        le=7200,
        description="Seconds without traffic until the operating system asks whether the other end "
        "of a connection is still there; it gives up after three unanswered questions.",
    )
    max_partition_fetch_bytes: int = Field(
        128 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        description="Bytes fetched of a partition at a time. They are worked off before the next "
        "partition has its turn, so less is fairer in a backlog; more costs less a record.",
    )
    empty_poll_pause_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Milliseconds to pause after an empty poll; 0 leaves the waiting to the "
        "broker. For brokers that answer an empty fetch at once.",
    )
    rejoin_pause_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Milliseconds between giving partitions back and joining the group's next "
        "round. For brokers that forget who still waits for an answer of the last one.",
    )


class InputSettings(Section):
    """What is read."""

    topic: str = Field("texts.in", pattern=_TOPIC, description="Topic of texts.")
    format: Literal["json", "text"] = Field(
        "json", description="`json`: an object with the text in it. `text`: plain UTF-8."
    )
    text_path: str = Field(
        "text", pattern=_PATH, description="Where the text lies in the object, dots between keys."
    )
    id_path: str = Field(
        "id",
        pattern=_PATH,
        description="Where the producer's id lies in the object; it may be absent.",
    )
    max_bytes: int = Field(
        1_000_000, ge=1, description="Largest value to decode, bytes; larger ones are dead letters."
    )
    overflow: Literal["truncate", "dead_letter"] = Field(
        "truncate", description="A text of more tokens than the model takes is cut, or refused."
    )
    start: Literal["earliest", "latest"] = Field(
        "earliest",
        description="Where a group without committed offsets begins; it commits that at once. "
        "A partition that is added later is read from its start.",
    )


class OutputSettings(Section):
    """What is published."""

    topic: str = Field("texts.labelled", pattern=_TOPIC, description="Topic of results.")
    mode: Literal["classification", "enrich"] = Field(
        "classification",
        description="`classification`: the result alone. `enrich`: the input object with the "
        "result as its member `classification`.",
    )
    dead_letter_topic: str = Field(
        "texts.dead", pattern=_TOPIC, description="Topic of records that could not be labelled."
    )
    timestamp: Literal["event", "labelled"] = Field(
        "event",
        description="Of a result and a dead letter: the input record\x27s, or the time of labelling. "
        "Kafka deletes by it (`retention.ms`).",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "none", description="Compression of published batches."
    )


class ModelSettings(Section):
    """Which model, and how it runs."""

    name: str = Field(
        REFERENCE_MODEL,
        min_length=1,
        description="Hub id, directory, or `bundled` (small, English, needs no hub).",
        json_schema_extra=named("--model", ("STREAMLABEL_MODEL",)),
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
    activation: Literal["auto", "softmax", "sigmoid", "none"] = Field(
        "auto",
        description="What makes probabilities of the model's outputs: `softmax` where one label "
        "applies, `sigmoid` where each stands alone, `none` where the outputs are probabilities "
        "already; `auto` goes by `problem_type` in its config.json, and is softmax without one.",
    )
    engine: Literal["auto", "packed", "padded"] = Field(
        "auto",
        description="Forward pass: `packed` joins texts in one row without padding, for the "
        "architectures that allow it; `padded` is for all; `auto` is packed where it can be.",
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Threads of the model on a CPU; default: all cores, divided by `processes`.",
    )
    lanes: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Parts of a packed forward pass that run side by side on a CPU, each with its "
        "share of the threads; default: one a thread, 16 at most. 1 has all threads share every step.",
    )
    cache_dir: Path = Field(
        Path("~/.cache/streamlabel"), description="Where prepared models and samples are kept."
    )


class BatchSettings(Section):
    """When a micro-batch closes, and how it is cut for the model."""

    # Only a backlog fills them. A larger window sorts into passes with less padding; but four
    # micro-batches can be between poll and publish, and at a stop or a rebalance all are drained:
    # at 40 texts a second, four of 128 take 13 of the 20 seconds of rebalance_drain_timeout.
    max_records: int = Field(128, ge=1, le=100_000, description="Records in a micro-batch.")
    max_tokens: int = Field(
        8_192, ge=1, description="Tokens in a micro-batch, estimated from the texts' bytes."
    )
    latency_goal_ms: float | None = Field(
        None,
        gt=0,
        le=600_000,
        description="Milliseconds that a record should spend in the worker, at most: micro-batches "
        "become as small as that takes, by the throughput measured. While more waits than can be "
        "done in that time, and by default, throughput goes first.",
    )
    forward_tokens: int | None = Field(
        None,
        ge=16,
        description="Tokens in one forward pass, padding included; default: found at warm-up, or "
        "4,096 where `model.lanes` divide it.",
    )


class CacheSettings(Section):
    """What is remembered of texts, so that the model labels each but once."""

    # About 98,000 texts with two labels, or 43,000 with 28: minutes of a busy stream, which is
    # where repeats are, and little memory beside the model's own.
    max_bytes: int = Field(
        16_000_000, ge=0, description="Bytes of predictions to keep, by text; 0 keeps none."
    )


class DriftSettings(Section):
    """What the labels and confidences of results are compared with."""

    reference_records: int = Field(
        2_000,
        ge=0,
        le=10_000_000,
        description="Records with a result, the first ones after a start, that later ones are "
        "compared with; 0 turns the comparison off.",
    )
    window_records: int = Field(
        1_000,
        ge=100,
        le=10_000_000,
        description="Records with a result, the newest ones, that are compared with them.",
    )


class HttpSettings(Section):
    """The live page, metrics and health."""

    enabled: bool = Field(True, description="Serve the page, /metrics, /livez and /readyz.")
    host: str = Field("127.0.0.1", description="Address to listen on; 0.0.0.0 in a container.")
    port: int = Field(9100, ge=0, le=65_535, description="Port to listen on; 0 picks a free one.")
    page: bool = Field(True, description="Serve the live page, which `streamlabel top` draws too.")
    classify: bool = Field(
        True, description="Let the page's box and programs ask the model (POST /classify)."
    )
    allowed_hosts: HostNames | None = Field(
        None,
        description="Names, comma-separated, that the page may be asked for under, besides "
        "`http.host`, this machine's own and addresses; without any, all where it listens to a "
        "network.",
    )
    token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Token that page, box and metrics ask for: `Authorization: Bearer TOKEN`, or the "
        "password in a browser. /livez and /readyz stay open for probes. Prefer a file.",
    )
    show_texts: bool = Field(
        False, description="Show the texts of the last posts on the page, to all who can reach it."
    )


class TracingSettings(Section):
    """OpenTelemetry traces; needs the extra `tracing`.

    The collector's address and all else is taken from the variables that each of its SDKs knows.
    """

    sample_ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of micro-batches that become a span, sent to "
        "OTEL_EXPORTER_OTLP_ENDPOINT (needs the extra `tracing`); 0 turns tracing off.",
    )


class LogSettings(Section):
    """What is written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe level that is written."
    )
    format: Literal["auto", "json", "plain"] = Field(
        "auto", description="`auto`: plain where standard error is a terminal, else JSON."
    )
