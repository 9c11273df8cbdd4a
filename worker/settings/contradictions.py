"""Values that are valid alone and make no sense together.

Owns: the checks across options, one sentence for each problem.
Thread: main, while the settings are loaded.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from worker.settings.decision import decision_problems
from worker.settings.files import has_encrypted_key
from worker.settings.kafka_client import KafkaSettings
from worker.settings.prepare import prepare_conflicts
from worker.settings.registry import RegistrySettings
from worker.settings.route_conflicts import route_conflicts
from worker.settings.sections import (
    CacheSettings,
    DriftSettings,
    HttpSettings,
    InputSettings,
    ModelOptions,
)
from worker.settings.sign_in import listed, present, sign_in
from worker.settings.topics import INPUT_NAME
from worker.settings.window_conflicts import window_conflicts

if TYPE_CHECKING:
    from worker.settings.declaration import Settings

_INTERNAL_TOPICS: Final = (
    "__consumer_offsets",
    "__transaction_state",
    "__share_group_state",
    "__cluster_metadata",
)
_INPUTS: Final = ("topic", "topics", "topic_pattern")
PLAIN_FORMATS: Final = frozenset({"json", "text"})
# A result is added to a record as it is: plain text has no object, and a Protobuf message would
# need generated code in each reader.
_ENRICHABLE: Final = {("json", "json"), ("avro", "avro"), ("json_schema", "json_schema")}
_SMALLEST_CACHE: Final = 100_000  # bytes
_SMALLEST_REFERENCE: Final = 100  # records


def contradictions(s: Settings) -> Iterator[str]:
    """Yield one sentence for each value that conflicts with another, or can't be meant."""
    yield from _topics(s)
    yield from window_conflicts(s)
    yield from _formats(s)
    yield from _sizes(s)
    yield from _model("model", s.model)
    yield from _model("shadow", s.shadow)
    yield from _models(s)
    yield from decision_problems("decision", s.decision)
    yield from _shadow(s)
    yield from route_conflicts(s)
    yield from prepare_conflicts("prepare", s.prepare)
    yield from _times(s)
    yield from _registry_wait(s)
    yield from _cache(s.cache)
    yield from _drift(s.drift)
    yield from _security(s.kafka)
    yield from _client(s.kafka)
    yield from _registry(s.registry)
    yield from _http(s.http)


def _topics(s: Settings) -> Iterator[str]:
    yield from _inputs(s.input)
    paths: dict[str, list[str]] = {}  # by topic
    option = "input.topics" if s.input.topics else "input.topic"
    for name in dict.fromkeys(s.topics.inputs):
        paths[name] = [option]
    for path in ("output.topic", "output.dead_letter_topic", "output.filtered_topic"):
        if name := getattr(s.output, path.removeprefix("output.")):
            paths.setdefault(name, []).append(path)
    shared = {name: used for name, used in paths.items() if len(used) > 1}
    for name, (*others, last) in shared.items():
        number = "both" if len(others) == 1 else "all"
        yield f"the topics must differ: {', '.join(others)} and {last} are {number} {name!r}"
    if not shared:
        yield from s.topics.conflicts()
    for name, used in paths.items():
        if name in (".", ".."):
            yield f"{used[0]} = {name!r} is not a valid topic name in Kafka"
        elif name in _INTERNAL_TOPICS:
            yield f"{used[0]} = {name!r} is an internal topic of Kafka: choose another name"


def _inputs(i: InputSettings) -> Iterator[str]:
    """Yield what is wrong with the ways to name the inputs: one of three is used."""
    given = [f"input.{name}" for name in _INPUTS if name in i.model_fields_set and getattr(i, name)]
    same = i.topics == (i.topic,) and not i.topic_pattern
    if len(given) > 1 and not same:
        yield f"{' and '.join(given)} are set: keep one of them"
    if len(set(i.topics)) < len(i.topics):
        yield f"input.topics names a topic twice ({', '.join(i.topics)})"


def _formats(s: Settings) -> Iterator[str]:
    for path, value in (("input.format", s.input.format), ("output.format", s.output.format)):
        if value not in PLAIN_FORMATS and not s.registry.url:
            yield f"{path} = {value!r} needs registry.url, the address of the schema registry"
    if s.output.mode == "enrich" and s.input.format == "text":
        yield 'output.mode = "enrich" needs an object to add to: plain text has no object'
    elif s.output.mode == "enrich" and (s.input.format, s.output.format) not in _ENRICHABLE:
        pairs = ", ".join(f"{source} to {result}" for source, result in sorted(_ENRICHABLE))
        yield (
            f'output.mode = "enrich" can\'t add to input.format = {s.input.format!r} with '
            f"output.format = {s.output.format!r}: it adds to {pairs}"
        )
    elif s.output.mode == "enrich" and _shares_subjects(s):
        yield (
            'registry.subject_name_strategy = "record_name" with output.mode = "enrich": the '
            "enriched schema would get the subject of the input's, whose name it keeps. Use "
            '"topic_name" or "topic_record_name"'
        )


def _shares_subjects(s: Settings) -> bool:
    return s.output.format != "json" and s.registry.subject_name_strategy == "record_name"


def _sizes(s: Settings) -> Iterator[str]:
    if s.input.max_bytes > s.max_inflight_bytes:
        yield (
            f"input.max_bytes ({s.input.max_bytes}) is more than max_inflight_bytes "
            f"({s.max_inflight_bytes})"
        )
    named = {f"models.{name}": m for name, m in s.models.items()}
    for section, m in ({"model": s.model, "shadow": s.shadow} | named).items():
        if s.batch.forward_tokens and (m.max_tokens or 0) > s.batch.forward_tokens:
            yield (
                f"{section}.max_tokens ({m.max_tokens}) is more than batch.forward_tokens "
                f"({s.batch.forward_tokens}): the longest text would not fit in a forward pass"
            )


def _models(s: Settings) -> Iterator[str]:
    """Yield what is wrong with several models, beside the options of each."""
    for name, model in s.models.items():
        yield from _model(f"models.{name}", model)
        if model.decision:
            yield from decision_problems(f"models.{name}.decision", model.decision)
        if model.prepare:
            yield from prepare_conflicts(f"models.{name}.prepare", model.prepare)
        if model.when and model.when.path and s.input.format == "text":
            yield (
                f"models.{name}.when names the field {model.when.path!r}, and with input.format = "
                "'text' a record has no fields"
            )
    given = [f"model.{n}" for n in ModelOptions.model_fields if n in s.model.model_fields_set]
    if s.models and given:
        yield (
            f"{' and '.join(given)} and models.{next(iter(s.models))} are set: with [models.NAME], "
            "[model] holds only what all models share, such as threads"
        )
    if s.models and s.shadow.is_on:
        yield "shadow.name compares with the one model of [model]: remove it, or use [model]"


def _model(section: str, m: ModelOptions) -> Iterator[str]:
    if m.calibration_texts and m.dtype not in ("int8", "auto-int8"):
        yield (
            f"{section}.calibration_texts needs {section}.dtype = 'int8' or 'auto-int8', and it is "
            f"{m.dtype!r}"
        )
    if m.engine == "openvino" and m.dtype in ("int8", "auto-int8"):
        yield (
            f"{section}.dtype = {m.dtype!r} computes in torch, but {section}.engine = 'openvino': "
            f"use {section}.engine = 'auto', or another {section}.dtype"
        )


def _shadow(s: Settings) -> Iterator[str]:
    shadow = s.shadow
    # `streamlabel shadow report` takes a topic and labels without a model.
    others = shadow.model_fields_set - {"name", "topic", "labels"}
    fields = type(shadow).model_fields
    given = [n for n in sorted(others) if getattr(shadow, n) != fields[n].default]
    if given and not shadow.name:
        names = ", ".join(f"shadow.{name}" for name in given)
        yield f"{names} set, but no shadow.name: name the second model"
    yield from shadow_topic_conflicts(s)


def shadow_topic_conflicts(s: Settings) -> Iterator[str]:
    """Yield a sentence if the shadow's topic is another topic of the worker too."""
    shadow, topics = s.shadow, s.topics
    used = (*topics.outputs, topics.output)
    if shadow.topic and (shadow.topic in used or topics.matches(shadow.topic)):
        yield (
            f"shadow.topic = {shadow.topic!r} is a topic that the worker uses already: choose "
            "another name"
        )


def _times(s: Settings) -> Iterator[str]:
    if s.commit_every >= s.stall_timeout:
        yield (
            f"commit_interval ({s.commit_every:g}) must be below stall_timeout "
            f"({s.stall_timeout:g}): offsets waiting for their commit would look like a stall"
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
            f"({s.transaction_timeout:g}): the broker would abort transactions that are still open"
        )


def _registry_wait(s: Settings) -> Iterator[str]:
    """Yield a sentence if a registry that is away could stop the poll thread for too long."""
    addresses = (s.registry.url or "").count(",") + 1
    wait = s.registry.timeout * addresses
    limits = {
        "stall_timeout": s.stall_timeout,
        "kafka.max_poll_interval": s.kafka.max_poll_interval,
    }
    name, limit = min(limits.items(), key=itemgetter(1))
    if _registers_later(s) and wait > limit / 4:  # a registration may take several requests
        yield (
            f"registry.timeout ({s.registry.timeout:g}) times the addresses in registry.url "
            f"({addresses}) is more than a quarter of {name} ({limit:g}): when input.topic_pattern "
            "finds a topic, polling waits until the registry has the schema of its results. Set "
            f"registry.timeout to at most {limit / 4 / addresses:g}"
        )


def _registers_later(s: Settings) -> bool:
    """Return whether a topic that is found has an output of its own, whose results have a schema.

    The schemas of enriched results are registered by another thread.
    """
    own_output = s.input.topic_pattern and INPUT_NAME in s.output.topic
    return bool(own_output) and s.output.mode != "enrich" and s.output.format not in PLAIN_FORMATS


def _cache(c: CacheSettings) -> Iterator[str]:
    if 0 < c.max_bytes < _SMALLEST_CACHE:
        yield (
            f"cache.max_bytes ({c.max_bytes}) is too small for a useful cache: set at least "
            f"{_SMALLEST_CACHE}, or 0 for no cache"
        )


def _drift(d: DriftSettings) -> Iterator[str]:
    if 0 < d.reference_records < _SMALLEST_REFERENCE:
        yield (
            f"drift.reference_records ({d.reference_records}) is too few to tell a shift from "
            f"chance: set at least {_SMALLEST_REFERENCE}, or 0 for no comparison"
        )


def _http(h: HttpSettings) -> Iterator[str]:
    token = h.token.get_secret_value() if h.token else "-"
    if not (token.isascii() and token.isprintable()) or " " in token:
        yield "http.token must consist of printable ASCII characters, without spaces"
    if h.show_texts and not h.page:
        yield "http.show_texts needs http.page: only the page shows texts"


def _security(k: KafkaSettings) -> Iterator[str]:
    yield from sign_in(k)
    names = ("ssl_cafile", "ssl_certfile", "ssl_crlfile", "ssl_check_hostname", "ssl_ciphers")
    used = present(k, names)
    if used and not k.security_protocol.endswith("SSL"):
        yield (
            f"{listed(used)} set, but kafka.security_protocol = {k.security_protocol!r}: use "
            "SSL or SASL_SSL"
        )
    yield from _client_certificate("kafka", k)


def _client_certificate(section: str, files: KafkaSettings | RegistrySettings) -> Iterator[str]:
    for name in ("ssl_keyfile", "ssl_key_password"):
        if getattr(files, name) and not files.ssl_certfile:
            yield f"{section}.{name} needs {section}.ssl_certfile"
    for name in ("ssl_keyfile", "ssl_certfile"):
        file = getattr(files, name)
        if file and not files.ssl_key_password and has_encrypted_key(file):
            password = f"{section}.ssl_key_password"
            yield f"the key in {section}.{name} = {file} is encrypted: set {password}"


def _registry(r: RegistrySettings) -> Iterator[str]:
    token = r.token.get_secret_value() if r.token else "-"
    if not (token.isascii() and token.isprintable()) or " " in token:
        yield "registry.token must consist of printable ASCII characters, without spaces"
    if r.token and r.username is not None:
        yield "registry.token and registry.username are both set: choose one sign-in"
    if r.password and r.username is None:
        yield "registry.password needs registry.username"
    if ":" in (r.username or ""):
        yield "registry.username has a colon in it, at which basic sign-in would end the name"
    paths = [f"registry.{name}" for name in ("ssl_cafile", "ssl_certfile") if getattr(r, name)]
    if paths and "https://" not in (r.url or ""):
        yield f"{', '.join(paths)} set, but registry.url is not an address with https://"
    yield from _client_certificate("registry", r)


def _client(k: KafkaSettings) -> Iterator[str]:
    if k.fetch_max_wait >= k.request_timeout:
        yield (
            f"kafka.fetch_max_wait ({k.fetch_max_wait:g}) must be below kafka.request_timeout "
            f"({k.request_timeout:g})"
        )
    if k.fetch_max_bytes < k.max_partition_fetch_bytes:
        yield (
            f"kafka.fetch_max_bytes ({k.fetch_max_bytes}), over all partitions, is less than "
            f"kafka.max_partition_fetch_bytes ({k.max_partition_fetch_bytes}), of one"
        )
    if k.reconnect_backoff > k.reconnect_backoff_max:
        yield (
            f"kafka.reconnect_backoff ({k.reconnect_backoff:g}) is more than "
            f"kafka.reconnect_backoff_max ({k.reconnect_backoff_max:g})"
        )
