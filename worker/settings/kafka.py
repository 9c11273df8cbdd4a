"""The options that reach and secure the Kafka cluster.

Owns: `ClusterSettings` and the check of broker addresses; `kafka_client` adds the other options.
Thread: any; the values are frozen.
Must not import: anything of worker but `section`.
"""

from __future__ import annotations

import re
from typing import Any, Literal

from pydantic import Field, FilePath, SecretStr, field_validator

from worker.settings.section import Section, named

_HOST = r"([^\s,:\[\]/]+|\[[0-9a-fA-F:]+\])"
_LAST_PORT = 65_535


class ClusterSettings(Section):
    """The cluster, the consumer group and the connection's security."""

    bootstrap_servers: str = Field(
        "localhost:9092",
        description="Brokers to contact first: `host:port`, comma-separated or a TOML list.",
        json_schema_extra=named("--bootstrap-servers", ("KAFKA_BOOTSTRAP_SERVERS",))
        | {"type": ["string", "array"], "items": {"type": "string"}},
    )
    group_id: str = Field(
        "streamlabel",
        min_length=1,
        description="Consumer group id. The workers of one group share the input's partitions.",
        json_schema_extra=named("--group-id"),
    )
    group_instance_id: str | None = Field(
        None,
        min_length=1,
        description="Static membership id. It must be unique in the group and stay the same across "
        "restarts. With `processes`, each process appends its number: `-0`, `-1`, ...",
    )
    client_id: str = Field(
        "streamlabel",
        description="Client id, used by the broker for logs and quotas. With `processes`, each "
        "process appends its number.",
    )

    @field_validator("bootstrap_servers", mode="before")
    @classmethod
    def _addresses(cls, value: Any) -> Any:
        servers = value.split(",") if isinstance(value, str) else value
        if not isinstance(servers, list) or not all(isinstance(item, str) for item in servers):
            raise ValueError("must be host:port, comma-separated or a list")
        servers = [server.strip() for server in servers]
        if not all(servers) or not servers:
            raise ValueError("no broker, or an extra comma: write host:port,host:port")
        for server in servers:
            _check_address(server)
        return ",".join(servers)

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field(
        "PLAINTEXT", description="Security protocol of the connection."
    )
    sasl_mechanism: (
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "AWS_MSK_IAM", "GSSAPI"] | None
    ) = Field(
        None,
        description="SASL mechanism. Required by the SASL protocols. `AWS_MSK_IAM` needs "
        "`streamlabel[aws]`, and `GSSAPI` (Kerberos) needs `streamlabel[kerberos]`.",
    )
    sasl_username: str | None = Field(None, description="SASL user name.")
    sasl_password: SecretStr | None = Field(
        None,
        description="SASL password. Prefer a file or the environment: flags are visible in `ps`.",
    )
    sasl_aws_region: str | None = Field(
        None,
        min_length=1,
        description="AWS region of the cluster, for `AWS_MSK_IAM`. Default: AWS_REGION, else the "
        "region of the AWS configuration.",
    )
    sasl_aws_profile: str | None = Field(
        None,
        min_length=1,
        description="Profile of the AWS configuration that has the credentials. Default: the usual "
        "search of AWS (variables, AWS_PROFILE, container, instance).",
    )
    sasl_aws_role_arn: str | None = Field(
        None,
        min_length=1,
        description="ARN of an AWS role to take on with these credentials.",
    )
    sasl_kerberos_service_name: str = Field(
        "kafka", min_length=1, description="Service name in the brokers' Kerberos principals."
    )
    sasl_kerberos_domain_name: str | None = Field(
        None,
        min_length=1,
        description="Host name in the brokers' Kerberos principals. Default: the address of each "
        "broker.",
    )
    ssl_cafile: FilePath | None = Field(
        None, description="PEM file of the authority that signed the brokers' certificates."
    )
    ssl_certfile: FilePath | None = Field(None, description="PEM file of the client certificate.")
    ssl_keyfile: FilePath | None = Field(
        None,
        description="PEM file of the client's private key. Not needed if `kafka.ssl_certfile` "
        "contains the key.",
    )
    ssl_key_password: SecretStr | None = Field(
        None,
        description="Password of an encrypted private key. Prefer a file or the environment.",
    )
    ssl_crlfile: FilePath | None = Field(
        None,
        description="PEM file of the authority's list of revoked certificates. A broker whose "
        "certificate is in it is refused, and every broker once the list has expired. It is read "
        "for each connection.",
    )
    ssl_check_hostname: bool = Field(
        True,
        description="Require that a broker's certificate is for its host name. Without it, any "
        "certificate of the same authority is accepted.",
    )
    ssl_ciphers: str | None = Field(
        None,
        min_length=1,
        description="Ciphers for TLS 1.2, as OpenSSL lists them. Those of TLS 1.3 are fixed.",
    )
    session_timeout: float = Field(
        45.0,
        ge=1,
        le=1800,
        description="Seconds without a heartbeat until the broker removes a worker from the group.",
    )
    max_poll_interval: float = Field(
        300.0,
        ge=1,
        le=86_400,
        description="Seconds without a poll until a worker is removed from the group as stuck.",
    )
    request_timeout: float = Field(
        30.0, ge=1, le=600, description="Seconds to wait for a broker's response."
    )
    metadata_max_age: float = Field(
        30.0,
        ge=1,
        le=3600,
        description="Seconds until cached metadata (topics, partitions, brokers) is refreshed. Added "
        "partitions are noticed within this time. Errors refresh the metadata earlier.",
    )
    connections_max_idle: float = Field(
        180.0,
        ge=1,
        le=86_400,
        description="Seconds until an idle connection is closed. Keep this below the idle timeout of "
        "brokers and load balancers: after they drop a connection silently, the next record waits "
        "for `kafka.request_timeout`. Azure Event Hubs allows 240 and advises 180.",
    )
    tcp_keepalive: int = Field(
        60,
        ge=1,
        le=7200,
        description="Seconds without traffic until the operating system probes a connection. Three "
        "unanswered probes close it.",
    )
    max_partition_fetch_bytes: int = Field(
        128 * 1024,
        ge=1024,
        le=64 * 1024 * 1024,
        description="Bytes fetched from one partition at a time. A worker processes them before it "
        "turns to the next partition: a smaller value is fairer in a backlog, a larger one costs "
        "less per record.",
    )
    empty_poll_pause_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Milliseconds to pause after an empty poll. 0 leaves the waiting to the broker; "
        "set a pause for brokers that answer an empty fetch at once.",
    )
    rejoin_pause_ms: float = Field(
        0.0,
        ge=0,
        le=1000,
        description="Milliseconds between giving up partitions and rejoining the group. Set it for "
        "brokers that lose members still waiting for the previous round.",
    )


def _check_address(server: str) -> None:
    if "://" in server:
        raise ValueError(f"{server!r} has a scheme: write host:port")
    if re.fullmatch(_HOST, server):
        raise ValueError(f"{server!r} has no port: write {server}:9092, or the port in use")
    address = re.fullmatch(rf"{_HOST}:([0-9]{{1,5}})", server)
    if not address:
        raise ValueError(f"{server!r} is not host:port")
    if not 1 <= int(address[2]) <= _LAST_PORT:
        raise ValueError(f"the port of {server!r} is not between 1 and {_LAST_PORT}")
