"""The options that reach and secure the Kafka cluster.

Owns: `ClusterSettings` and the check of broker addresses; `kafka_client` adds the other options.
Thread: any; the values are frozen.
Must not import: anything of worker but `section` and `table`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, field_validator

from worker.settings.section import NOT_QUOTED, SECRET, Section, named
from worker.settings.table import Pairs, Table

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
        Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "AWS_MSK_IAM", "GSSAPI"]
        | None
    ) = Field(
        None,
        description="SASL mechanism. Required by the SASL protocols. `AWS_MSK_IAM` needs "
        "`streamlabel[aws]`, and `GSSAPI` (Kerberos) needs `streamlabel[kerberos]`.",
    )
    sasl_username: str | None = Field(None, description="SASL user name.")
    sasl_password: SecretStr | None = Field(
        None,
        description="SASL password. Prefer a file or the environment: flags are visible in `ps`. A "
        "file is read again for each connection.",
    )
    sasl_oauth_token_url: str | None = Field(
        None,
        description="Token endpoint of OAUTHBEARER, an `https` URL. It gives tokens for client "
        "credentials (RFC 6749, section 4.4). A token is renewed after 80 % of its life.",
        json_schema_extra=NOT_QUOTED,
    )
    sasl_oauth_client_id: str | None = Field(
        None, min_length=1, description="Client id at the token endpoint."
    )
    sasl_oauth_client_secret: SecretStr | None = Field(
        None,
        min_length=1,
        description="Client secret at the token endpoint. Prefer a file or the environment.",
    )
    sasl_oauth_client_auth: Literal["basic", "post"] = Field(
        "basic",
        description="How the client id and the secret are sent to the token endpoint. `basic`: in "
        "the header `Authorization`. `post`: in the form.",
    )
    sasl_oauth_scope: str | None = Field(
        None, min_length=1, description="Scope to ask for. Several are separated by spaces."
    )
    sasl_oauth_parameters: Table = Field(
        Pairs(),
        repr=False,
        description="Further fields of the request for a token, such as `audience` or `resource`. A "
        "table of strings, or `name=value` pairs, comma-separated. Prefer a file or the environment "
        "if one of them is secret.",
        json_schema_extra=SECRET,
    )
    sasl_oauth_cafile: FilePath | None = Field(
        None,
        description="PEM file of the authority that signed the token endpoint's certificate. "
        "Default: the public authorities.",
    )
    sasl_oauth_token_file: Path | None = Field(
        None,
        description="File with the token of OAUTHBEARER, in place of a token endpoint. Another program "
        "renews it, as Kubernetes does with a projected token. It is read again at each sign-in.",
    )
    sasl_oauth_extensions: Table = Field(
        Pairs(),
        description="SASL extensions to send with a token: `logicalCluster` and `identityPoolId` of "
        "Confluent Cloud. A table of strings, or `name=value` pairs, comma-separated.",
    )

    @field_validator("sasl_oauth_token_url")
    @classmethod
    def _token_url(cls, value: str | None) -> str | None:
        try:
            parts = urlsplit(value or "https://-")
        except ValueError:  # a bracket without its other
            parts = urlsplit("")
        if parts.username or parts.password:
            raise ValueError(
                "has a user or a password in it: set kafka.sasl_oauth_client_id and "
                "kafka.sasl_oauth_client_secret"
            )
        if "?" in (value or "") or "#" in (value or ""):
            raise ValueError("has a query or a fragment: set kafka.sasl_oauth_parameters")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be https://HOST/PATH")
        return value

    @field_validator("sasl_oauth_parameters")
    @classmethod
    def _parameters(cls, value: Pairs) -> Pairs:
        for name in ("scope", "client_id", "client_secret"):
            if name in value:
                raise ValueError(f"{name} is set by kafka.sasl_oauth_{name}")
        return value

    @field_validator("sasl_oauth_extensions")
    @classmethod
    def _extensions(cls, value: Pairs) -> Pairs:
        """Check names and values; their characters are those of RFC 7628, section 3.1."""
        for name, content in value.items():
            if not re.fullmatch("[A-Za-z]+", name) or name == "auth":
                raise ValueError(f"{name!r} is no name of an extension: letters only, and not auth")
            if not re.fullmatch(r"[\x20-\x7e\t\r\n]+", content):
                raise ValueError(f"the value of {name} must consist of printable ASCII characters")
        return value

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
        description="ARN of an AWS role to assume with these credentials.",
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
        description="Password of an encrypted private key. Prefer a file, which is read again for each "
        "connection, or the environment.",
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
