"""Objects of KEDA and of Prometheus' operator, as pydantic models that refuse unknown fields.

Only what the chart uses, from the API references of KEDA 2.20 and of monitoring.coreos.com/v1.
tests/chart/test_manifests.py also holds KEDA's objects to its own definitions, where they are found.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Metadata(_Strict):
    name: str
    labels: dict[str, str]
    annotations: dict[str, str] = {}


class _Target(_Strict):
    apiVersion: Literal["apps/v1"]
    kind: Literal["Deployment", "StatefulSet"]
    name: str


class _Fallback(_Strict):
    failureThreshold: int = Field(ge=1)
    replicas: int = Field(ge=0)
    behavior: Literal[
        "static", "currentReplicas", "currentReplicasIfHigher", "currentReplicasIfLower"
    ] = "static"


class _Policy(_Strict):
    type: Literal["Percent", "Pods"]
    value: int = Field(ge=1)
    periodSeconds: int = Field(ge=1, le=1800)


class _Rules(_Strict):
    stabilizationWindowSeconds: int = Field(ge=0, le=3600)
    selectPolicy: Literal["Max", "Min", "Disabled"] = "Max"
    policies: list[_Policy] = []


class _Behavior(_Strict):
    scaleUp: _Rules
    scaleDown: _Rules


class _Autoscaler(_Strict):
    name: str = ""
    behavior: _Behavior


class _Advanced(_Strict):
    restoreToOriginalReplicaCount: bool = False
    horizontalPodAutoscalerConfig: _Autoscaler


class _Reference(_Strict):
    name: str
    kind: Literal["TriggerAuthentication", "ClusterTriggerAuthentication"] = "TriggerAuthentication"


class KafkaTrigger(_Strict):
    """What KEDA's kafka scaler reads; every value is text."""

    bootstrapServers: str
    consumerGroup: str
    topic: str = ""
    lagThreshold: str = Field(pattern=r"^[1-9]\d*$")
    activationLagThreshold: str = Field(pattern=r"^\d+$")
    offsetResetPolicy: Literal["earliest", "latest"]
    allowIdleConsumers: Literal["true", "false"]
    excludePersistentLag: Literal["true", "false"]
    scaleToZeroOnInvalidOffset: Literal["true", "false"]
    limitToPartitionsWithLag: Literal["true", "false"] = "false"
    partitionLimitation: str = ""
    version: str = Field(pattern=r"^\d+\.\d+\.\d+$")
    sasl: Literal[
        "none", "plaintext", "scram_sha256", "scram_sha512", "oauthbearer", "gssapi"
    ] = "none"  # fmt: skip
    saslTokenProvider: Literal["bearer", "aws_msk_iam"] = "bearer"
    awsRegion: str = ""
    tls: Literal["enable", "disable"] = "disable"
    unsafeSsl: Literal["true", "false"] = "false"


class _Trigger(_Strict):
    type: Literal["kafka"]
    metadata: KafkaTrigger
    authenticationRef: _Reference | None = None


class _ScaledObjectSpec(_Strict):
    scaleTargetRef: _Target
    minReplicaCount: int = Field(ge=0)
    maxReplicaCount: int = Field(ge=1)
    idleReplicaCount: int | None = None
    pollingInterval: int = Field(ge=1)
    cooldownPeriod: int = Field(ge=0)
    initialCooldownPeriod: int = Field(ge=0)
    fallback: _Fallback | None = None
    advanced: _Advanced
    triggers: list[_Trigger] = Field(min_length=1)


class ScaledObject(_Strict):
    """https://keda.sh/docs/2.20/reference/scaledobject-spec/."""

    apiVersion: Literal["keda.sh/v1alpha1"]
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
    secretTargetRef: list[_Source] = []
    configMapTargetRef: list[_Source] = []
    podIdentity: dict[str, str] | None = None


class TriggerAuthentication(_Strict):
    """https://keda.sh/docs/2.20/concepts/authentication/."""

    apiVersion: Literal["keda.sh/v1alpha1"]
    kind: Literal["TriggerAuthentication"]
    metadata: _Metadata
    spec: _TriggerAuthenticationSpec


class _Selector(_Strict):
    matchLabels: dict[str, str]


class _Key(_Strict):
    name: str
    key: str


class _Authorization(_Strict):
    type: str = "Bearer"
    credentials: _Key


class _Relabeling(_Strict):
    targetLabel: str
    replacement: str | None = None
    sourceLabels: list[str] = []
    action: str = "replace"


class _Endpoint(_Strict):
    port: str
    path: str
    interval: str = Field(pattern=r"^\d+(ms|s|m|h)$")
    authorization: _Authorization | None = None
    relabelings: list[_Relabeling] = []


class _PodMonitorSpec(_Strict):
    selector: _Selector
    podMetricsEndpoints: list[_Endpoint] = Field(min_length=1)


class PodMonitor(_Strict):
    """monitoring.coreos.com/v1."""

    apiVersion: Literal["monitoring.coreos.com/v1"]
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

    apiVersion: Literal["monitoring.coreos.com/v1"]
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
