"""The options of each section but Kafka's: type, bound, default and description.

Owns: one class for each table of the TOML file.
Thread: any; the values are frozen.
Must not import: anything of worker but `section`, `prepare` and `windows`.
"""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr

from worker.settings import windows
from worker.settings.prepare import FUNCTION
from worker.settings.section import Section, named

_TOPIC = r"^[A-Za-z0-9._-]{1,249}$"  # what Kafka allows
# An output's name may hold the input's.
_OUTPUT = r"^([A-Za-z0-9._-]{1,249}|[A-Za-z0-9._-]{0,248}\{topic\}[A-Za-z0-9._-]{0,248})$"
PATH_PATTERN = r"^[^.]+(\.[^.]+)*$"
_HOST_NAME = r"^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$"
_WEB_ADDRESS = r"^https?://[^\s/?#@]+([/?#]\S*)?$"
PATTERNS = {  # in words, for error messages
    _TOPIC: "1 to 249 letters, digits, dots, underscores or hyphens",
    _WEB_ADDRESS: "an address such as https://grafana.example.org/d/1, without a user",
    _OUTPUT: "1 to 249 letters, digits, dots, underscores or hyphens, and {topic} at most once",
    PATH_PATTERN: "keys separated by single dots",
    FUNCTION: "package.module:name, with names as Python has them",
    _HOST_NAME: "host names: letters, digits, dots, underscores or hyphens",
}

REFERENCE_MODEL = "distilbert-base-uncased-finetuned-sst-2-english"


def _names(value: Any) -> Any:
    """Split comma-separated names, as flags and variables have them."""
    names = value.split(",") if isinstance(value, str) else value
    strings = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    return [name.strip() for name in names] if strings else value


def _lower_names(value: Any) -> Any:
    names = _names(value)
    return [name.lower() for name in names] if isinstance(names, list) else names


def _expression(value: str | None) -> str | None:
    """Check a regular expression; a construct that Python reads in another way is refused too."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", FutureWarning)
            re.compile(value or "")
    except (re.error, FutureWarning, RecursionError, OverflowError) as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return value


HostName = Annotated[str, Field(pattern=_HOST_NAME)]
HostNames = Annotated[tuple[HostName, ...], BeforeValidator(_lower_names)]
TopicName = Annotated[str, Field(pattern=_TOPIC)]
TopicNames = Annotated[tuple[TopicName, ...], BeforeValidator(_names)]
Expression = Annotated[str | None, AfterValidator(_expression)]


class InputSettings(Section):
    """The topics that are read, and how their records are decoded."""

    topic: str = Field("texts.in", pattern=_TOPIC, description="Topic to read texts from.")
    topics: TopicNames = Field(
        (),
        description="Topics to read texts from, instead of `input.topic`: comma-separated or a TOML "
        "list.",
    )
    topic_pattern: Expression = Field(
        None,
        min_length=1,
        description="Regular expression for the topics to read, instead of `input.topic`. It must "
        "match the whole name, in Python's syntax. New topics are found within "
        "`kafka.metadata_max_age`, deleted ones end. Kafka's internal topics never match.",
    )
    format: Literal["json", "text", "avro", "json_schema", "protobuf", "auto"] = Field(
        "json",
        description="Format of an input record. `json`: an object that contains the text. `text`: "
        "the text alone, UTF-8. `avro`, `json_schema` and `protobuf` are framed by a serializer of "
        "a schema registry and need `registry.url`. `auto` reads framed records by the type of "
        "their schema, and the others as JSON.",
    )
    text_path: str = Field(
        "text",
        pattern=PATH_PATTERN,
        description="Path of the text in the object: keys or field names, dot-separated.",
    )
    id_path: str = Field(
        "id",
        pattern=PATH_PATTERN,
        description="Path of the message id in the object: keys or field names, dot-separated. The "
        "id may be absent.",
    )
    max_bytes: int = Field(
        1_000_000,
        ge=1,
        description="Maximum size of a record value, bytes. Larger values become dead letters.",
    )
    overflow: windows.Overflow = windows.overflow()
    stride: int = windows.stride()
    max_windows: int = windows.max_windows()
    combine: windows.Combine = windows.combine()
    start: Literal["earliest", "latest"] = Field(
        "earliest",
        description="Start position of a group without committed offsets. The worker commits it at "
        "once. A partition added later is read from its beginning.",
    )


class OutputSettings(Section):
    """The topics that are written, and the form of a result."""

    topic: str = Field(
        "texts.labelled",
        pattern=_OUTPUT,
        description="Topic to write results to. `{topic}` in it stands for the input's name: each "
        "input then has an output of its own.",
    )
    mode: Literal["classification", "enrich"] = Field(
        "classification",
        description="Form of a result. `classification`: the result alone. `enrich`: the input "
        "object with the result added as `classification`.",
    )
    format: Literal["json", "avro", "json_schema", "protobuf"] = Field(
        "json",
        description="Format of a result. `avro`, `json_schema` and `protobuf` are framed as a "
        "schema registry's serializers do, and need `registry.url`. A dead letter always has the "
        "input record's value.",
    )
    dead_letter_topic: str = Field(
        "texts.dead",
        pattern=_TOPIC,
        description="Topic for records that could not be labelled, of every input.",
    )
    filtered_topic: TopicName | None = Field(
        None,
        description="Topic for a note of each record that is filtered. A route with `drop = true` and "
        "a skip by `prepare.function` need it. A note has the record's key and coordinates, and "
        "the reason; it has no value. Default: none.",
    )
    timestamp: Literal["event", "labelled"] = Field(
        "event",
        description="Timestamp of results and dead letters. `event`: that of the input record. "
        "`labelled`: the time of labelling. Kafka applies `retention.ms` to it.",
    )
    compression: Literal["none", "gzip", "snappy", "lz4", "zstd"] = Field(
        "none", description="Compression of published batches."
    )


class ModelOptions(Section):
    """A model, and how it runs: the options of each model that a worker loads."""

    name: str
    revision: str | None = Field(
        None, description="Commit, tag or branch of the model on the Hub. Default: its main branch."
    )
    max_tokens: int | None = Field(
        None, ge=3, description="Maximum length of a text, tokens. Default: the model's limit."
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Device for the model. `auto` uses a GPU if PyTorch finds one."
    )
    dtype: Literal["auto", "float32", "bfloat16", "int8", "auto-int8"] = Field(
        "auto",
        description="Number type of the forward pass. `auto` is bfloat16 on processors that compute "
        "in it, else float32. `int8` computes linear layers in 8-bit integers on a CPU with AMX or "
        "VNNI, which changes a few labels; layers that change too many stay wider, or all do. "
        "`auto-int8` does so only where it can and where it is faster.",
    )
    calibration_texts: Path | None = Field(
        None,
        description="UTF-8 file of your texts, one a line, at least 300. They calibrate int8 and "
        "decide at the start whether it changes too many labels. Default: built-in texts.",
    )
    activation: Literal["auto", "softmax", "sigmoid", "none"] = Field(
        "auto",
        description="Function from model outputs to probabilities. `softmax`: exactly one label "
        "applies. `sigmoid`: labels are independent. `none`: the outputs are probabilities already. "
        "`auto` follows `problem_type` in the model's config.json; without one, it is softmax.",
    )
    engine: Literal["auto", "packed", "padded", "openvino"] = Field(
        "auto",
        description="Forward pass. `packed` joins texts in one row without padding, on the "
        "architectures that allow it. `padded` works with every model. `openvino` runs on a CPU, needs "
        "`streamlabel[openvino]`, and uses torch for models that OpenVINO can't run. `auto` packs if it "
        "can; where OpenVINO is installed, it measures both and takes the faster.",
    )


class ModelSettings(ModelOptions):
    """The model, and how it runs."""

    name: str = Field(
        REFERENCE_MODEL,
        min_length=1,
        description="Model: a Hugging Face Hub id, a directory, or `bundled` (small, English, works "
        "offline).",
        json_schema_extra=named("--model", ("STREAMLABEL_MODEL",)),
    )
    threads: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="CPU threads of the model. Default: the cores in the worker's CPU affinity, or "
        "fewer if its container or service has a CPU limit (rounded down), divided by `processes`; at "
        "most OMP_NUM_THREADS, or else the number of physical cores. The tokenizer's threads have the "
        "same default without that bound; RAYON_NUM_THREADS sets them.",
    )
    lanes: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Parallel parts of a packed or `openvino` forward pass on a CPU, each with its share of the "
        "threads. Default: one per thread, at most 16. With 1, all threads share every operation.",
    )
    cache_dir: Path = Field(
        Path("~/.cache/streamlabel"),
        description="Directory that keeps prepared models and sample posts.",
    )
    reload_on_change: bool = Field(
        False,
        description="Change the model when the settings file changes. The file is read once a second; "
        "the model that it names is loaded beside the one in use. SIGHUP and `POST /model` change it "
        "without this setting.",
    )

    def with_options(self, options: ModelOptions) -> ModelSettings:
        """Return the settings of another model, with threads and cache directory of this one."""
        own = {name: getattr(options, name) for name in ModelOptions.model_fields}
        return self.model_copy(update=own)


class BatchSettings(Section):
    """The limits of a micro-batch and of a forward pass."""

    # Only a backlog fills them. A larger micro-batch sorts into forward passes of more equal
    # lengths. But four of them can be between poll and publish, and at a stop or a rebalance all
    # are drained: four of two seconds take 8 of the 20 seconds of rebalance_drain_timeout.
    max_records: int = Field(
        512,
        ge=1,
        le=100_000,
        description="Maximum records in a micro-batch, and never more than max_inflight_records.",
    )
    max_tokens: int = Field(
        32_768,
        ge=1,
        description="Maximum tokens in a micro-batch, estimated from the texts' size in bytes.",
    )
    max_seconds: float = Field(
        2.0,
        gt=0,
        le=600,
        description="Maximum time of a micro-batch in the model, seconds, at the measured "
        "throughput. It bounds how long a stop or a rebalance waits on a slow model.",
    )
    latency_goal_ms: float | None = Field(
        None,
        gt=0,
        le=600_000,
        description="Target for the time of a record in the worker, milliseconds. Micro-batches shrink to "
        "meet the goal at the measured throughput. By default, and during a backlog too large for "
        "the goal, throughput has priority.",
    )
    forward_tokens: int | None = Field(
        None,
        ge=16,
        description="Maximum tokens in a forward pass, padding included. Default: measured at "
        "warm-up, or 4,096 if `model.lanes` split the pass.",
    )


class CacheSettings(Section):
    """The cache of predictions, which saves a forward pass for a repeated text."""

    # About 98,000 texts with two labels, or 43,000 with 28: minutes of a busy stream, which is
    # where repeats are, and little memory beside the model's own.
    max_bytes: int = Field(
        16_000_000, ge=0, description="Size of the prediction cache, bytes. 0 turns it off."
    )


class DriftSettings(Section):
    """The comparison of new results with the first ones after a start."""

    reference_records: int = Field(
        2_000,
        ge=0,
        le=10_000_000,
        description="Number of labelled records after a start that later ones are compared with. 0 "
        "turns the comparison off.",
    )
    window_records: int = Field(
        1_000,
        ge=100,
        le=10_000_000,
        description="Number of the newest labelled records that are compared with the reference.",
    )


class HttpSettings(Section):
    """The live page, metrics and health."""

    enabled: bool = Field(True, description="Serve the live page, /metrics, /livez and /readyz.")
    host: str = Field("127.0.0.1", description="Address to listen on. Use 0.0.0.0 in a container.")
    port: int = Field(
        9100,
        ge=0,
        le=65_535,
        description="Port of the live page, metrics and health. 0 picks a free one.",
    )
    page: bool = Field(
        True, description="Serve the live page, from which `streamlabel top` reads too."
    )
    classify: bool = Field(
        True, description="Let the page and programs classify texts with POST /classify."
    )
    allowed_hosts: HostNames | None = Field(
        None,
        description="Additional host names that requests may use, comma-separated. `http.host`, this "
        "machine's name and its addresses are always allowed. Default: every name if the worker "
        "listens to a network.",
    )
    token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Token required for the page, /classify, /model and /metrics. Programs send "
        "`Authorization: Bearer TOKEN`, people enter it as the browser's password. Probes of /livez "
        "and /readyz need none. Without a token, POST /model is refused. Prefer a file.",
    )
    show_texts: bool = Field(
        False,
        description="Show the texts of recent posts and dead letters on the page, to everyone who can "
        "reach it.",
    )
    board_url: str | None = Field(
        None,
        pattern=_WEB_ADDRESS,
        description="Address of this deployment's Grafana board, `http` or `https`. The page links to "
        "it.",
    )


class TracingSettings(Section):
    """OpenTelemetry traces; they need the extra `tracing`.

    The SDK's own variables set the collector's address and all else.
    """

    sample_ratio: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of micro-batches to trace. Spans go to "
        "OTEL_EXPORTER_OTLP_ENDPOINT and need the extra `tracing`. 0 turns tracing off.",
    )


class LogSettings(Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )
    format: Literal["auto", "json", "plain"] = Field(
        "auto",
        description="Format of log lines. `auto` is plain if standard error is a terminal, else JSON.",
    )
