"""Helm accepts the chart, and Kubernetes, KEDA and Prometheus' operator what it renders.

No cluster is needed: manifests are held to the published schemas, with unknown fields refused.
"""

from __future__ import annotations

import copy
import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from pydantic import ValidationError

from tests.chart.foreign import MODELS, crds
from tests.deploy.project import Project
from tests.support.charts import (
    CHART,
    EXAMPLES,
    ROOT,
    Manifest,
    container,
    environment,
    example,
    helm,
    needs_helm,
    one,
    pod,
    render,
    workload,
)
from worker.settings import load

VERSION = "1.34"
NAMES = [file.stem for file in EXAMPLES]
KEDA = Path(os.environ.get("KUBERNETES_HOME") or "/nowhere") / "keda.yaml"
ALERTS = Project(ROOT).alerts
PLAIN = sorted((ROOT / "deploy" / "kubernetes").glob("*.yaml"))

pytestmark = needs_helm
every_example = pytest.mark.parametrize("name", NAMES)


def test_there_is_an_example_of_each_case() -> None:
    assert set(NAMES) == {
        "bundled", "hub-model", "exactly-once", "sasl-ssl", "keda", "gpu", "processes", "monitoring",
    }  # fmt: skip


def test_helm_finds_nothing_to_say_about_the_defaults() -> None:
    assert "1 chart(s) linted, 0 chart(s) failed" in helm("lint", "--strict", str(CHART))


@every_example
def test_helm_finds_nothing_to_say_about_an_example(name: str) -> None:
    file = CHART / "examples" / f"{name}.yaml"
    output = helm("lint", "--strict", str(CHART), "--values", str(file))
    assert "1 chart(s) linted, 0 chart(s) failed" in output


@every_example
def test_every_manifest_is_valid(name: str) -> None:
    for manifest in example(name):
        validate(manifest)


def validate(manifest: Manifest) -> None:
    """Hold a manifest to its schema; raise if there is none, or if it has an unknown field."""
    if model := MODELS.get(manifest["kind"]):
        model.model_validate(manifest)
    else:
        kubernetes_validate.validate(manifest, VERSION, strict=True)


def test_the_examples_have_every_kind_of_object() -> None:
    kinds = {manifest["kind"] for name in NAMES for manifest in example(name)}
    assert kinds == {
        "Deployment", "StatefulSet", "ConfigMap", "Service", "ServiceAccount", "NetworkPolicy",
        "PodDisruptionBudget", *MODELS,
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["Deployment", "PodMonitor", "ScaledObject"])
def test_an_unknown_field_is_found(kind: str) -> None:
    name = {"Deployment": "bundled", "PodMonitor": "monitoring", "ScaledObject": "keda"}[kind]
    manifest = copy.deepcopy(one(example(name), kind))
    manifest["spec"]["replicaz"] = 1
    with pytest.raises((ValidationError, kubernetes_validate.ValidationError), match="replicaz"):
        validate(manifest)


@pytest.mark.skipif(not KEDA.is_file(), reason="KEDA's definitions are not found: KUBERNETES_HOME")
def test_keda_s_own_definitions_accept_its_objects() -> None:
    definitions = crds(list(yaml.safe_load_all(KEDA.read_text(encoding="utf-8"))))
    for manifest in example("keda"):
        if manifest["kind"] in ("ScaledObject", "TriggerAuthentication"):
            schema = definitions[manifest["kind"]]
            jsonschema.validate(manifest, schema)
            with pytest.raises(jsonschema.ValidationError, match="planted"):
                jsonschema.validate(manifest | {"spec": manifest["spec"] | {"planted": 1}}, schema)


@pytest.mark.parametrize("file", PLAIN, ids=lambda file: file.stem)
def test_the_plain_manifests_are_valid(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert "Helm" not in text
    manifest = yaml.safe_load(text)
    if manifest["kind"] == "Kustomization":
        assert {*manifest["resources"], file.name} == {other.name for other in PLAIN}
    else:
        validate(manifest)


def test_exactly_once_gets_stable_names(tmp_path: Path) -> None:
    """A StatefulSet's pod keeps its name, so a successor has the transactional id of its slot."""
    manifests = example("exactly-once")
    assert workload(manifests)["kind"] == "StatefulSet"
    assert (
        workload(manifests)["spec"]["serviceName"] == one(manifests, "Service")["metadata"]["name"]
    )
    assert one(manifests, "Service")["spec"]["clusterIP"] == "None"
    assert environment(manifests)["STREAMLABEL_KAFKA_GROUP_INSTANCE_ID"] == "$(POD_NAME)"
    names = [item["name"] for item in container(manifests)["env"]]
    assert names.index("POD_NAME") < names.index("STREAMLABEL_KAFKA_GROUP_INSTANCE_ID")
    named = render(tmp_path, {"settings": {"kafka": {"group_instance_id": "posts"}}})
    assert workload(named)["kind"] == "StatefulSet"
    assert environment(named)["STREAMLABEL_KAFKA_GROUP_INSTANCE_ID"] == "posts-$(POD_NAME)"


def test_a_deployment_has_no_static_members(tmp_path: Path) -> None:
    values = {"workload": "Deployment", "settings": {"delivery": "exactly_once"}}
    for manifests in (example("bundled"), render(tmp_path, values)):
        assert workload(manifests)["kind"] == "Deployment"
        assert "STREAMLABEL_KAFKA_GROUP_INSTANCE_ID" not in environment(manifests)


def test_keda_scales_no_static_members_unless_they_are_asked_for(tmp_path: Path) -> None:
    """A static member never leaves its group: what KEDA stops would hold its partitions."""
    values: dict[str, Any] = {
        "settings": {"delivery": "exactly_once"},
        "keda": {"enabled": True, "maxReplicaCount": 6},
    }
    assert workload(render(tmp_path, values))["kind"] == "Deployment"
    values["settings"]["kafka"] = {"group_instance_id": "posts"}
    manifests = render(tmp_path, values)
    assert workload(manifests)["kind"] == "StatefulSet"
    assert one(manifests, "ScaledObject")["spec"]["scaleTargetRef"]["kind"] == "StatefulSet"


def test_a_rollout_takes_one_pod_at_a_time() -> None:
    strategy = workload(example("bundled"))["spec"]["strategy"]
    assert strategy["rollingUpdate"] == {"maxSurge": 0, "maxUnavailable": 1}
    assert workload(example("exactly-once"))["spec"]["updateStrategy"] == {"type": "RollingUpdate"}


def test_a_changed_setting_replaces_the_pods_and_a_changed_chart_does_not(tmp_path: Path) -> None:
    def template(**values: Any) -> Any:
        return workload(render(tmp_path, values))["spec"]["template"]

    assert template(replicaCount=2) == template()
    assert template(settings={"log": {"level": "debug"}}) != template()
    assert "helm.sh/chart" not in template()["metadata"]["labels"]


def test_keda_sets_the_replicas() -> None:
    """A number in the manifest would undo KEDA's with each upgrade."""
    assert "replicas" not in workload(example("keda"))["spec"]
    assert workload(example("bundled"))["spec"]["replicas"] == 2


def test_keda_follows_the_settings(tmp_path: Path) -> None:
    manifests = example("keda")
    [trigger] = one(manifests, "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"] | {
        "topic": "posts", "offsetResetPolicy": "earliest", "sasl": "plaintext", "tls": "enable",
        "bootstrapServers": "kafka.messaging:9092", "consumerGroup": "streamlabel",
    } == trigger["metadata"]  # fmt: skip
    sources = one(manifests, "TriggerAuthentication")["spec"]
    assert {(s["parameter"], s["name"], s["key"]) for s in sources["secretTargetRef"]} == {
        ("password", "kafka-login", "password"),
        ("ca", "kafka-login", "ca.crt"),
    }
    [user] = sources["configMapTargetRef"]
    config = one(manifests, "ConfigMap")
    assert (user["parameter"], user["name"]) == ("username", config["metadata"]["name"])
    assert config["data"][user["key"]] == "labeller"
    assert trigger["authenticationRef"]["name"] == trigger_authentication(manifests)
    several = {
        "settings": {"input": {"topics": ["a", "b"], "start": "latest"}},
        "keda": {"enabled": True, "maxReplicaCount": 6},
    }
    triggers = one(render(tmp_path, several), "ScaledObject")["spec"]["triggers"]
    assert [each["metadata"]["topic"] for each in triggers] == ["a", "b"]
    assert {each["metadata"]["offsetResetPolicy"] for each in triggers} == {"latest"}
    assert not any("authenticationRef" in each for each in triggers)


def trigger_authentication(manifests: list[Manifest]) -> str:
    name: str = one(manifests, "TriggerAuthentication")["metadata"]["name"]
    return name


OAUTH = {
    "security_protocol": "SASL_SSL", "sasl_mechanism": "OAUTHBEARER", "sasl_oauth_client_id": "labeller",
    "sasl_oauth_token_url": "https://id.example/token", "sasl_oauth_scope": "read write",
    "sasl_oauth_extensions": {"logicalCluster": "lkc-1", "identityPoolId": "pool-1"},
}  # fmt: skip


def test_keda_signs_in_with_tokens_as_the_worker_does(tmp_path: Path) -> None:
    secret = {"setting": "kafka.sasl_oauth_client_secret", "secretName": "login", "key": "secret"}
    keda = {"enabled": True, "maxReplicaCount": 6}
    manifests = render(tmp_path, {"settings": {"kafka": OAUTH}, "secrets": [secret], "keda": keda})
    for manifest in manifests:
        validate(manifest)
    data = one(manifests, "ConfigMap")["data"]
    assert {key: data[key] for key in data if key.startswith("keda.")} == {
        "keda.username": "labeller",
        "keda.oauthTokenEndpointUri": "https://id.example/token",
        "keda.scopes": "read,write",
        "keda.oauthExtensions": "identityPoolId=pool-1,logicalCluster=lkc-1",
    }
    [trigger] = one(manifests, "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["sasl"] == "oauthbearer"


def test_a_client_certificate_of_one_file_is_both_for_keda(tmp_path: Path) -> None:
    """The worker finds the key in the certificate's file; KEDA wants it named."""
    values = {
        "settings": {"kafka": {"security_protocol": "SSL"}},
        "secrets": [{"setting": "kafka.ssl_certfile", "secretName": "client", "key": "pem"}],
        "keda": {"enabled": True, "maxReplicaCount": 6},
    }
    manifests = render(tmp_path, values)
    found = one(manifests, "TriggerAuthentication")["spec"]["secretTargetRef"]
    assert {(s["parameter"], s["key"]) for s in found} == {("cert", "pem"), ("key", "pem")}


def test_keda_signs_in_to_msk_with_its_own_identity(tmp_path: Path) -> None:
    kafka = {
        "security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM", "sasl_aws_region": "eu-west-1",
    }  # fmt: skip
    keda = {"enabled": True, "maxReplicaCount": 6}
    manifests = render(tmp_path, {"settings": {"kafka": kafka}, "keda": keda})
    for manifest in manifests:
        validate(manifest)
    assert one(manifests, "TriggerAuthentication")["spec"] == {"podIdentity": {"provider": "aws"}}
    [trigger] = one(manifests, "ScaledObject")["spec"]["triggers"]
    assert trigger["metadata"]["saslTokenProvider"] == "aws_msk_iam"
    assert trigger["metadata"]["awsRegion"] == "eu-west-1"


def test_a_gpu_is_asked_for_and_needed() -> None:
    manifests = example("gpu")
    limits = container(manifests)["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == "1"
    assert pod(manifests)["runtimeClassName"] == "nvidia"
    assert container(manifests)["image"].endswith("-cuda")
    assert 'device = "cuda"' in one(manifests, "ConfigMap")["data"]["streamlabel.toml"]


def test_alerts_are_those_of_the_project_but_the_disabled(tmp_path: Path) -> None:
    def alerts(**values: Any) -> set[str]:
        manifests = render(
            tmp_path, {"prometheusRule": {"enabled": True, **values.pop("rule", {})}} | values
        )
        [group] = one(manifests, "PrometheusRule")["spec"]["groups"]
        return {rule["alert"] for rule in group["rules"]}

    every = {rule["alert"] for rule in ALERTS}
    assert alerts() == every
    assert alerts(rule={"disabled": ["StreamlabelSlow"]}) == every - {"StreamlabelSlow"}
    # Scaled to zero, no worker is there to be found.
    assert alerts(keda={"enabled": True, "maxReplicaCount": 6}) == every - {"StreamlabelMissing"}


def test_an_alert_leads_to_the_runbook_that_the_values_name(tmp_path: Path) -> None:
    def addresses(rule: dict[str, Any]) -> dict[str, str]:
        manifests = render(tmp_path, {"prometheusRule": {"enabled": True} | rule})
        [group] = one(manifests, "PrometheusRule")["spec"]["groups"]
        return {rule["alert"]: rule["annotations"]["runbook_url"] for rule in group["rules"]}

    every = addresses({})
    assert every == {rule["alert"]: rule["annotations"]["runbook_url"] for rule in ALERTS}
    own = "https://wiki.example.org/streamlabel"
    assert addresses({"runbookUrl": own}) == {name: f"{own}#{name.lower()}" for name in every}


def test_the_board_opens_with_the_data_source_that_the_values_name(tmp_path: Path) -> None:
    """The rest is the board of the project."""
    shipped = Project(ROOT).board
    for uid in ("default", 'a "b"'):
        manifests = render(tmp_path, {"dashboard": {"enabled": True, "datasource": uid}})
        [text] = (
            m["data"]["streamlabel.json"] for m in manifests if "dashboard" in m["metadata"]["name"]
        )
        board = json.loads(text)
        source = board["templating"]["list"][0]
        assert (source["name"], source["current"]) == ("datasource", {"text": uid, "value": uid})
        source["current"] = shipped["templating"]["list"][0]["current"]
        assert board == shipped


def test_metrics_are_scraped_with_the_token() -> None:
    [endpoint] = one(example("monitoring"), "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "streamlabel-http", "key": "token"}


def test_a_network_policy_opens_what_the_settings_need() -> None:
    """Brokers at 9093, the registry at 8081; DNS; and the worker's own port for Prometheus."""
    spec = one(example("sasl-ssl"), "NetworkPolicy")["spec"]
    opened = {port["port"] for rule in spec["egress"] for port in rule["ports"]}
    assert opened == {53, 9093, 8081}
    assert [rule["ports"] for rule in spec["ingress"]] == [[{"port": "http", "protocol": "TCP"}]]


def test_routes_and_models_are_tables_of_the_settings_file(tmp_path: Path) -> None:
    """A list of tables has a form of its own in TOML, which JSON does not have."""
    settings = {
        "model": {"name": None},  # the chart's own default
        "output": {"filtered_topic": "notes"},
        "models": {
            "language": {"name": "bundled"},
            "mood": {"name": "bundled", "when": {"model": "language", "label": ["en"]}},
        },
        "routes": [
            {"name": "angry", "model": "mood", "label": "NEGATIVE", "topic": "a.{label}"},
            {"path": "spam", "in": [True, 3, 'a "b"'], "drop": True},
        ],
    }
    manifests = render(tmp_path, {"settings": settings})
    file = tmp_path / "streamlabel.toml"
    file.write_text(one(manifests, "ConfigMap")["data"]["streamlabel.toml"])
    loaded = load(config=file, environ={}).settings
    assert loaded.routes[0].topic == "a.{label}"
    assert loaded.routes[1].in_ == (True, 3, 'a "b"')
    assert loaded.models["mood"].when.label == ("en",)
