"""Objects of KEDA and of Prometheus' operator, as pydantic models that refuse unknown fields.

Only what the chart uses, from the API references of KEDA 2.20 and of monitoring.coreos.com/v1.
test_manifests.py also holds KEDA's objects to its own definitions, if it finds them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class _Metadata(_Strict):
    name: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}


class _Target(_Strict):
    api_version: Literal["apps/v1"]
    kind: Literal["Deployment", "StatefulSet"]
    name: str


class _Fallback(_Strict):
    failure_threshold: int = Field(ge=1)
    replicas: int = Field(ge=0)
    behavior: Literal[
        "static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"
    ] = "static"


class _Policy(_Strict):
    type: Literal["Percent", "Pods"]
    value: int = Field(ge=1)
    period_seconds: int = Field(ge=1, le=1800)


class _Rules(_Strict):
    stabilization_window_seconds: int = Field(ge=0, le=3600)
    select_policy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: list[_Policy] = []


class _Behavior(_Strict):
    scale_up: _Rules
    scale_down: _Rules


class _Autoscaler(_Strict):
    name: str = ""
    behavior: _Behavior


class _Advanced(_Strict):
    restore_to_original_replica_count: bool = False
    horizontal_pod_autoscaler_config: _Autoscaler


class _Reference(_Strict):
    name: str
    kind: Literal["TriggerAuthentication", "ClusterTriggerAuthentication"] = "TriggerAuthentication"


class KafkaTrigger(_Strict):
    """The parameters of KEDA's kafka scaler; every value is text."""

    bootstrap_servers: str
    consumer_group: str
    topic: str = ""
    lag_threshold: str = Field(pattern=r"^[1-9]\d*$")
    activation_lag_threshold: str = Field(pattern=r"^\d+$")
    offset_reset_policy: Literal["earliest", "latest"]
    allow_idle_consumers: Literal["true", "false"]
    exclude_persistent_lag: Literal["true", "false"]
    scale_to_zero_on_invalid_offset: Literal["true", "false"]
    limit_to_partitions_with_lag: Literal["true", "false"] = "false"
    partition_limitation: str = ""
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    sasl: Literal[
        "none", "plaintext", "scram_sha256", "scram_sha512", "oauthbearer", "gssapi"
    ] = "none"  # fmt: skip
    sasl_token_provider: Literal["bearer", "aws_msk_iam"] = "bearer"
    aws_region: str = ""
    tls: Literal["enable", "disable"] = "disable"
    unsafe_ssl: Literal["true", "false"] = "false"


class _Trigger(_Strict):
    type: Literal["kafka"]
    metadata: KafkaTrigger
    authentication_ref: _Reference | None = None


class _ScaledObjectSpec(_Strict):
    scale_target_ref: _Target
    min_replica_count: int = Field(ge=0)
    max_replica_count: int = Field(ge=1)
    idle_replica_count: int | None = None
    polling_interval: int = Field(ge=1)
    cooldown_period: int = Field(ge=0)
    initial_cooldown_period: int = Field(ge=0)
    fallback: _Fallback | None = None
    advanced: _Advanced
    triggers: list[_Trigger] = Field(min_length=1)


class ScaledObject(_Strict):
    """https://keda.sh/docs/2.20/reference/scaledobject-spec/."""

    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["ScaledObject"]
    metadata: _Metadata
    spec: _ScaledObjectSpec


class _Source(_Strict):
    """A parameter of the kafka scaler, out of a Secret or a ConfigMap."""

    parameter: Literal[
        "sasl", "username", "password", "oauthTokenEndpointUri", "scopes", "oauthExtensions",
        "tls", "ca", "cert", "key", "keyPassword",
    ]  # fmt: skip
    name: str
    key: str


class _TriggerAuthenticationSpec(_Strict):
    secret_target_ref: list[_Source] = []
    config_map_target_ref: list[_Source] = []
    pod_identity: dict[str, str] | None = None


class TriggerAuthentication(_Strict):
    """https://keda.sh/docs/2.20/concepts/authentication/."""

    api_version: Literal["keda.sh/v1alpha1"]
    kind: Literal["TriggerAuthentication"]
    metadata: _Metadata
    spec: _TriggerAuthenticationSpec


class _Selector(_Strict):
    match_labels: dict[str, str]


class _Key(_Strict):
    name: str
    key: str


class _Authorization(_Strict):
    type: str = "Bearer"
    credentials: _Key


class _Relabeling(_Strict):
    target_label: str
    replacement: str | None = None
    source_labels: list[str] = []
    action: str = "replace"


class _Endpoint(_Strict):
    port: str
    path: str
    interval: str = Field(pattern=r"^\d+(ms|s|m|h)$")
    authorization: _Authorization | None = None
    relabelings: list[_Relabeling] = []


class _PodMonitorSpec(_Strict):
    selector: _Selector
    pod_metrics_endpoints: list[_Endpoint] = Field(min_length=1)


class PodMonitor(_Strict):
    """monitoring.coreos.com/v1."""

    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: _Metadata
    spec: _PodMonitorSpec


class _Rule(_Strict):
    alert: str
    expr: str
    for_: str = Field("0s", alias="for", pattern=r"^\d+(ms|s|m|h)$")
    labels: dict[str, str]
    annotations: dict[str, str]


class _Group(_Strict):
    name: str
    rules: list[_Rule] = Field(min_length=1)


class _PrometheusRuleSpec(_Strict):
    groups: list[_Group]


class PrometheusRule(_Strict):
    """monitoring.coreos.com/v1."""

    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PrometheusRule"]
    metadata: _Metadata
    spec: _PrometheusRuleSpec


MODELS: dict[str, type[BaseModel]] = {
    model.__name__: model
    for model in (ScaledObject, TriggerAuthentication, PodMonitor, PrometheusRule)
}


def crds(documents: list[Any]) -> dict[str, Any]:
    """Return the JSON Schema of each kind in a list of definitions, with unknown fields refused."""
    return {
        document["spec"]["names"]["kind"]: _closed(version["schema"]["openAPIV3Schema"])
        for document in documents
        if document and document["kind"] == "CustomResourceDefinition"
        for version in document["spec"]["versions"]
    }


def _closed(node: Any) -> Any:
    """Close every object that lists its properties; the head of an object is Kubernetes' own."""
    if isinstance(node, list):
        return [_closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    closed = {key: _closed(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        closed["additionalProperties"] = False
    return closed
