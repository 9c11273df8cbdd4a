"""Tokens of `AWS_MSK_IAM`: signed with AWS credentials, and sent by OAUTHBEARER.

Amazon's signer makes them: a URL that grants `kafka-cluster:Connect` for 15 minutes, in base64. The
credentials come from the usual chain of AWS, which also renews those that end. The packages come
with the extra `aws`.

Owns: the AWS session of one cluster's settings.
Thread: the caller's, and the thread "token"; `fetch` may ask AWS over the network.
Must not import: inference, runtime.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from aws_msk_iam_sasl_signer.MSKAuthTokenProvider import (
    generate_auth_token_from_credentials_provider,
)
from botocore import credentials as aws_credentials
from botocore import exceptions
from botocore.config import Config
from botocore.session import Session

from worker.clock import Clock
from worker.errors import AccessDenied, BrokerAway, SettingsError, StreamlabelError
from worker.kafka_io.tokens import Token
from worker.settings import KafkaSettings, read_environment

# Each try to get credentials ends within seconds: the worker itself tries again.
_NETWORK = Config(connect_timeout=5, read_timeout=5, retries={"total_max_attempts": 2})

# Another try would end the same way.
_PERMANENT = (
    exceptions.ConfigParseError,
    exceptions.InvalidConfigError,
    exceptions.InvalidRegionError,
    exceptions.NoCredentialsError,
    exceptions.PartialCredentialsError,
    exceptions.ProfileNotFound,
)


class MskTokens:
    """Signs tokens for one cluster.

    Args:
        kafka: the cluster; `sasl_aws_` options choose the region and the credentials.
        clock: tells how long a token lives.

    Raises:
        SettingsError: no region; no such profile.
    """

    def __init__(self, kafka: KafkaSettings, clock: Clock) -> None:
        self._clock = clock
        self._session = Session(profile=kafka.sasl_aws_profile)
        self._session.set_default_client_config(_NETWORK)
        self._region = _region(kafka, self._session)
        self._role, self._client = kafka.sasl_aws_role_arn, kafka.client_id
        self._credentials: Any = None

    def fetch(self) -> Token:
        """Return a new token.

        Raises:
            BrokerAway: AWS does not answer; try again.
            AccessDenied: there are no credentials, or AWS refuses them.
        """
        try:
            signed, ends_ms = generate_auth_token_from_credentials_provider(
                self._region, _Chain(self._chosen)
            )
        except (exceptions.BotoCoreError, exceptions.ClientError) as error:
            raise _translate(error) from error
        life = (ends_ms - self._clock.wall_ms()) / 1000
        return Token(signed, self._clock.monotonic(), life)

    def _chosen(self) -> Any:
        """Return credentials that stay the same while a token is signed."""
        if self._credentials is None:
            self._credentials = self._find()
        return self._credentials.get_frozen_credentials()

    def _find(self) -> Any:
        own = self._session.get_credentials()
        if own is None:
            raise exceptions.NoCredentialsError
        if self._role is None:
            return own
        fetcher = aws_credentials.AssumeRoleCredentialFetcher(
            partial(self._session.create_client, region_name=self._region),
            own,
            self._role,
            extra_args={"RoleSessionName": _session_name(self._client)},
        )
        return aws_credentials.DeferredRefreshableCredentials(
            fetcher.fetch_credentials, "assume-role"
        )


class _Chain(aws_credentials.CredentialProvider):  # type: ignore[misc] # it has no types
    """The signer asks it for credentials."""

    def __init__(self, load: Callable[[], Any]) -> None:
        super().__init__()
        self._load = load

    def load(self) -> Any:
        return self._load()


def _region(kafka: KafkaSettings, session: Any) -> str:
    # AWS sets the variable in its containers and functions; its Python library reads the older
    # AWS_DEFAULT_REGION, and the configuration's files.
    try:
        region = (
            kafka.sasl_aws_region
            or read_environment("AWS_REGION")
            or session.get_config_variable("region")
        )
    except exceptions.ProfileNotFound as error:
        setting = "kafka.sasl_aws_profile" if kafka.sasl_aws_profile else "AWS_PROFILE"
        raise SettingsError(f"{setting}: {error}") from error
    if not region:
        raise SettingsError(
            "kafka.sasl_mechanism = 'AWS_MSK_IAM' needs the region of the cluster: set "
            "kafka.sasl_aws_region or AWS_REGION"
        )
    return str(region)


def _session_name(client_id: str) -> str:
    """Return a name for AWS's own log of the session, of the characters that it allows."""
    allowed = "".join(char if char.isascii() and char.isalnum() else "-" for char in client_id)
    return (allowed + "--")[:64]


def _translate(error: Exception) -> StreamlabelError:
    if isinstance(error, exceptions.ClientError):
        answer = error.response.get("Error", {})
        reason = f"AWS refuses: {answer.get('Code')}: {answer.get('Message')}"
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        retry = status >= 500 or "Throttl" in str(answer.get("Code"))
        return BrokerAway(reason) if retry else AccessDenied(reason)
    if isinstance(error, exceptions.NoCredentialsError):
        return AccessDenied(
            "there are no AWS credentials: set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or give this machine or pod a role"
        )
    if isinstance(error, _PERMANENT):
        return AccessDenied(f"no AWS credentials: {error}")
    return BrokerAway(f"no AWS credentials at this time: {error}")
