"""`[kafka.extra]`: options of the client library that have no setting of their own.

Owns: their names and bounds; the advice for each name that the worker sets itself. A test holds
    both to the library.
Thread: any; nothing changes.
Must not import: anything of worker.

The settings keep every value as text, as a flag or a variable has it.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple


class _Kind(NamedTuple):
    """The values of an option: in words, as JSON Schema, and as the library takes them.

    `read` raises ValueError for a text that is not accepted.
    """

    words: str
    schema: Mapping[str, Any]
    read: Callable[[str], Any]


def _number(least: int, most: int) -> _Kind:
    def read(text: str) -> int:
        if not least <= int(text) <= most:
            raise ValueError
        return int(text)

    words = f"a whole number from {least} to {most}"
    return _Kind(words, {"type": "integer", "minimum": least, "maximum": most}, read)


def _one_of(words: str, schema: Mapping[str, Any], choices: Mapping[str, Any]) -> _Kind:
    def read(text: str) -> Any:
        if text not in choices:
            raise ValueError
        return choices[text]

    return _Kind(words, schema, read)


def _version(text: str) -> tuple[int, ...]:
    if not re.fullmatch(_VERSION, text):
        raise ValueError
    return tuple(map(int, text.split(".")))


_VERSION: Final = r"\d{1,3}(\.\d{1,3}){1,2}"
_SWITCH: Final = _one_of("true or false", {"type": "boolean"}, {"true": True, "false": False})
_LOOKUPS: Final = ("use_all_dns_ips", "resolve_canonical_bootstrap_servers_only")

KINDS: Final[Mapping[str, _Kind]] = {
    "api_version": _Kind(
        'a version in quotes, such as "2.8"',
        {"type": "string", "pattern": f"^{_VERSION}$"},
        _version,
    ),
    "check_crcs": _SWITCH,
    "client_dns_lookup": _one_of(
        f"one of {', '.join(_LOOKUPS)}", {"enum": list(_LOOKUPS)}, {name: name for name in _LOOKUPS}
    ),
    "enable_incremental_fetch_sessions": _SWITCH,
    # An idempotent producer may have five, and keeps their order.
    "max_in_flight_requests_per_connection": _number(1, 5),
    "receive_message_max_bytes": _number(1_000_000, 2**31 - 1),
    "retry_backoff_ms": _number(1, 60_000),
}
SCHEMA: Final[dict[str, Any]] = {
    "properties": {name: dict(kind.schema) for name, kind in KINDS.items()},
    "additionalProperties": False,
}

# Advice -> the options that it is for. Those with a setting of the same name are not listed.
REPLACED: Final[Mapping[str, str]] = {
    "set kafka.sasl_username and kafka.sasl_password": "sasl_plain_username sasl_plain_password",
    "set kafka.sasl_kerberos_service_name": "sasl_kerberos_name",
    "set kafka.sasl_mechanism": "sasl_oauth_token_provider",
    "set kafka.ssl_key_password": "ssl_password",
    "set kafka.ssl_cafile and the settings beside it": "ssl_context",
    "set kafka.proxy_url": "socks5_proxy",
    "set kafka.tcp_keepalive, kafka.send_buffer_bytes and kafka.receive_buffer_bytes": (
        "socket_options"
    ),
    "set input.start": "auto_offset_reset",
    "set batch.max_records": "max_poll_records",
    "set output.compression": "compression_type",
    "set create_topics": "allow_auto_create_topics",
    "set transaction_timeout": "transaction_timeout_ms",
    "set kafka.session_timeout": "heartbeat_interval_ms",
    "the worker commits itself; set commit_interval": (
        "auto_commit_interval_ms default_offset_commit_callback enable_auto_commit"
    ),
    "the worker sends what is ready and repeats it until it is acknowledged by all replicas": (
        "acks batch_size delivery_timeout_ms enable_idempotence linger_ms max_block_ms "
        "max_request_size retries"
    ),
    "the worker waits and tries again itself": "bootstrap_timeout_ms consumer_timeout_ms",
    "the worker reads committed records only": "isolation_level",
    "the worker never reads Kafka's internal topics": "exclude_internal_topics",
    "the worker's group is always cooperative-sticky": "partition_assignment_strategy",
    "the worker names its transactions by kafka.group_id": "transactional_id",
    "the worker chooses the partitions of results": "partitioner",
    "the worker reads and writes bytes": (
        "key_deserializer key_serializer value_deserializer value_serializer"
    ),
    "the worker needs its own": (
        "kafka_client metric_group_prefix metric_reporters metrics_enabled metrics_num_samples "
        "metrics_sample_window_ms selector"
    ),
}


def as_texts(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table of a TOML file with its switches and whole numbers as text."""
    return {
        name: str(value).lower() if isinstance(value, bool | int) else value
        for name, value in table.items()
    }


def problems(table: Mapping[str, Any], settings: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each option that is not accepted, with what to use instead.

    It quotes no value: a misspelt name's may be a secret.

    Args:
        table: the options, as texts.
        settings: the settings beside this table, by name.
    """
    for name, value in table.items():
        if name in KINDS:
            try:
                KINDS[name].read(value)
            except (ValueError, TypeError):
                yield f"{name} must be {KINDS[name].words}"
        elif instead := replacement(name, settings):
            yield f"{name} is not for this table: {instead}"
        else:
            near = difflib.get_close_matches(name, KINDS, n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            yield f"{name} is no option of the client library{hint}"


def replacement(name: str, settings: Mapping[str, Any]) -> str | None:
    """Return what stands for an option that the worker sets itself, or None."""
    for own in (name, name.removesuffix("_ms")):
        if own in settings:
            return f"set kafka.{own}"
    return next((instead for instead, names in REPLACED.items() if name in names.split()), None)


def values(table: Mapping[str, str]) -> dict[str, Any]:
    """Return the options as the library takes them."""
    return {name: KINDS[name].read(text) for name, text in table.items()}
