"""The options of the library's clients: intervals, sizes, a proxy, and the rest.

Owns: `KafkaSettings`, all options of `[kafka]`.
Thread: any; the values are frozen.
Must not import: anything of worker but this package.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator

from worker.settings import client_extra
from worker.settings.kafka import ClusterSettings
from worker.settings.section import NOT_QUOTED
from worker.settings.table import Pairs, Table

_PROXIES = ("http", "socks5", "socks5h")


class KafkaSettings(ClusterSettings):
    """The cluster, the consumer group, the connection's security, and the clients."""

    client_rack: str | None = Field(
        None,
        min_length=1,
        description="Rack or availability zone of this worker, as in the brokers' `broker.rack`. "
        "Records are then fetched from a replica there, if the brokers have set "
        "`replica.selector.class`.",
    )
    fetch_min_bytes: int = Field(
        1,
        ge=1,
        le=64 * 1024 * 1024,
        description="Bytes that a broker collects before it answers a fetch. More than 1 saves "
        "requests; records of a quiet topic wait for up to `kafka.fetch_max_wait`, beside "
        "`batch.latency_goal_ms`.",
    )
    fetch_max_wait: float = Field(
        0.1,
        ge=0.01,
        le=30,
        description="Seconds until a broker answers a fetch with fewer bytes than that. A partition "
        "that this worker has just been given waits for such an answer too.",
    )
    fetch_max_bytes: int = Field(
        50 * 1024 * 1024,
        ge=1024,
        le=1024 * 1024 * 1024,
        description="Bytes that a broker returns at a time, over all partitions. A batch that is "
        "larger is returned alone.",
    )
    max_request_bytes: int | None = Field(
        None,
        ge=10_000,
        le=100_000_000,
        description="Bytes of a request that publishes records, if brokers accept less than their "
        "topics. Larger results and dead letters are handled as too large for the topic. Default: "
        "the largest limit of the topics. Azure Event Hubs closes the connection above 1,046,528.",
    )
    reconnect_backoff: float = Field(
        0.05,
        ge=0.001,
        le=60,
        description="Seconds until a failed connection to a broker is tried again. It doubles with "
        "each failure.",
    )
    reconnect_backoff_max: float = Field(
        5.0,
        ge=0.001,
        le=600,
        description="Limit of that wait, seconds. It is also how late a worker may notice that a "
        "broker is back.",
    )
    send_buffer_bytes: int | None = Field(
        None,
        ge=1024,
        le=1024 * 1024 * 1024,
        description="Bytes of a connection's send buffer (SO_SNDBUF). Default: the operating "
        "system's, which grows as needed.",
    )
    receive_buffer_bytes: int | None = Field(
        None,
        ge=1024,
        le=1024 * 1024 * 1024,
        description="Bytes of a connection's receive buffer (SO_RCVBUF). Default: the operating "
        "system's, which grows as needed.",
    )
    proxy_url: SecretStr | None = Field(
        None,
        description="Proxy to the brokers: `http://` (CONNECT), `socks5://`, or `socks5h://`, which "
        "resolves their names. It may contain a user and a password, not percent-encoded: prefer a "
        "file.",
    )
    extra: Table = Field(
        Pairs(),
        description="Further options of the client library (kafka-python), by its names. A table, or "
        "`name=value` pairs, comma-separated. An option goes to the clients that have it. Accepted: "
        f"{', '.join(client_extra.KINDS)}.",
        json_schema_extra=NOT_QUOTED | client_extra.SCHEMA,
    )

    @field_validator("proxy_url")
    @classmethod
    def _proxy(cls, value: SecretStr | None) -> SecretStr | None:
        """Refuse what is no proxy's address; never quote one."""
        try:
            parts = urlsplit(value.get_secret_value()) if value else None
            complete = parts is None or (parts.scheme in _PROXIES and parts.hostname and parts.port)
        except ValueError:  # a port that is no number
            complete = False
        if not complete:
            raise ValueError(f"must be SCHEME://HOST:PORT; SCHEME is one of {', '.join(_PROXIES)}")
        return value

    @field_validator("extra", mode="before")
    @classmethod
    def _texts(cls, value: Any) -> Any:
        return client_extra.as_texts(value) if isinstance(value, dict) else value

    @field_validator("extra")
    @classmethod
    def _accepted(cls, value: Pairs) -> Pairs:
        if problems := list(client_extra.problems(value, cls.model_fields)):
            raise ValueError("; ".join(problems))
        return value

    @property
    def route(self) -> str:
        """Return the servers, and the proxy without its password, for messages."""
        if self.proxy_url is None:
            return self.bootstrap_servers
        proxy = urlsplit(self.proxy_url.get_secret_value())
        return f"{self.bootstrap_servers} through the proxy {proxy.hostname}:{proxy.port}"
