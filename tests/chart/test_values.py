"""Values that a template could misread: numbers as text, large numbers, repeated keys, nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.charts import (
    CHART,
    environment,
    helm,
    needs_helm,
    one,
    pod,
    render,
    settings_file,
    workload,
)
from worker.settings import load

pytestmark = needs_helm

HUB = {"mood": {"name": "bundled"}, "tone": {"name": "unitary/toxic-bert"}}
KEDA = {"enabled": True, "maxReplicaCount": 1000000}
PLAIN = {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN"}


class _Unique(yaml.SafeLoader):
    """Refuses a key that a mapping has twice, which YAML forbids and most parsers accept."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"repeated: {keys}"
        return super().construct_mapping(node, deep)


def strict(folder: Path, values: dict[str, Any], release: str = "labeller") -> list[dict[str, Any]]:
    """Return what an install creates; a repeated key is an error."""
    file = folder / "values.yaml"
    file.write_text(json.dumps(values), encoding="utf-8")  # to Helm, a bare Y is true
    text = helm("template", release, str(CHART), "--values", str(file))
    return [document for document in yaml.load_all(text, _Unique) if document]


def test_the_chart_s_own_labels_and_annotations_are_written_once(tmp_path: Path) -> None:
    """The labels of the selector can't be replaced: the workload would select none of its pods."""
    ours = {"app.kubernetes.io/name": "mine", "app.kubernetes.io/part-of": "mine"}
    values = {
        "commonLabels": ours,
        "podLabels": ours,
        "podMonitor": {"enabled": True, "labels": ours},
        "prometheusRule": {"enabled": True, "labels": ours},
        "dashboard": {"enabled": True, "labels": ours},
        "podAnnotations": {
            "kubectl.kubernetes.io/default-container": "side", "checksum/settings": "none",
        },
    }  # fmt: skip
    manifests = strict(tmp_path, values)
    for manifest in manifests:
        labels = manifest["metadata"]["labels"]
        assert labels["app.kubernetes.io/name"] == "streamlabel", manifest["kind"]
        assert labels["app.kubernetes.io/part-of"] == "mine", manifest["kind"]
    made = workload(manifests)["spec"]
    template = made["template"]["metadata"]
    assert made["selector"]["matchLabels"].items() <= template["labels"].items()
    assert template["labels"]["app.kubernetes.io/part-of"] == "mine"
    assert template["annotations"]["kubectl.kubernetes.io/default-container"] == "side"
    assert len(template["annotations"]["checksum/settings"]) == 64


def test_text_that_looks_like_a_number_or_a_comment_stays_text(tmp_path: Path) -> None:
    values = {
        "fullnameOverride": "posts",
        "settings": {"kafka": {"group_instance_id": "a #b"}},
        "secrets": [
            {"setting": "http.token", "secretName": "2", "key": "1"},
            {"env": "Y", "secretName": "2", "key": "1"},
        ],
        "priorityClassName": "3",
        "model": {"cache": {"existingClaim": "4"}},
        "podMonitor": {"enabled": True},
    }
    manifests = strict(tmp_path, values, release="123")
    for manifest in manifests:
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "123"
    assert (
        workload(manifests)["spec"]["selector"]["matchLabels"]["app.kubernetes.io/instance"]
        == "123"
    )
    variables = environment(manifests)
    assert variables["STREAMLABEL_KAFKA_GROUP_INSTANCE_ID"] == "a #b-$(POD_NAME)"
    assert variables["Y"] == "/etc/streamlabel/secrets/files/Y"
    spec = pod(manifests)
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    for source in volumes["secrets"]["projected"]["sources"]:
        assert (source["secret"]["name"], source["secret"]["items"][0]["key"]) == ("2", "1")
    assert volumes["cache"]["persistentVolumeClaim"]["claimName"] == "4"
    assert spec["priorityClassName"] == "3"
    [endpoint] = one(manifests, "PodMonitor")["spec"]["podMetricsEndpoints"]
    assert endpoint["authorization"]["credentials"] == {"name": "2", "key": "1"}


def test_a_large_number_is_an_integer(tmp_path: Path) -> None:
    """Helm's numbers are floats, and a template writes 1000000 as 1e+06."""
    large = 1000000
    keda = KEDA | {
        "minReplicaCount": large, "idleReplicaCount": 0, "pollingInterval": large,
        "cooldownPeriod": large, "initialCooldownPeriod": large,
        "fallback": {"failureThreshold": large, "replicas": large},
    }  # fmt: skip
    probes = {"startup": {"failureThreshold": large}}
    file = tmp_path / "values.yaml"
    for values in (
        {"keda": keda, "probes": probes, "podDisruptionBudget": {"minAvailable": large}},
        {"replicaCount": large, "podDisruptionBudget": {"maxUnavailable": large}},
        {"terminationGracePeriodSeconds": large, "model": {"cache": {"sizeLimit": large}}},
    ):
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        text = helm("template", "labeller", str(CHART), "--values", str(file))
        assert "1000000" in text
        assert "e+06" not in text


def test_a_budget_may_be_a_share(tmp_path: Path) -> None:
    budget = one(
        render(tmp_path, {"podDisruptionBudget": {"maxUnavailable": "25%"}}), "PodDisruptionBudget"
    )
    assert budget["spec"]["maxUnavailable"] == "25%"


@pytest.mark.parametrize("section", ["kafka", "model"])
def test_a_section_may_be_empty(section: str, tmp_path: Path) -> None:
    """An empty section takes the defaults of the chart away."""
    file = tmp_path / "values.yaml"
    secrets = [{"setting": "kafka.ssl_cafile", "secretName": "login", "key": "ca.crt"}]
    values = {"keda": KEDA, "networkPolicy": {"enabled": True}, "settings": {section: None}}
    file.write_text(yaml.safe_dump(values | {"secrets": secrets}), encoding="utf-8")
    assert "kind: ScaledObject" in helm("template", "labeller", str(CHART), "--values", str(file))


def test_labels_and_annotations_may_be_null(tmp_path: Path) -> None:
    names = ("commonLabels", "podLabels", "podAnnotations")
    values: dict[str, Any] = {"podMonitor": {"enabled": True, "labels": None}}
    manifests = strict(tmp_path, values | dict.fromkeys(names))
    labels = one(manifests, "PodMonitor")["metadata"]["labels"]
    assert labels["app.kubernetes.io/name"] == "streamlabel"


def test_keda_gets_a_user_from_the_secret_or_from_the_settings_and_not_twice(
    tmp_path: Path,
) -> None:
    values = {
        "settings": {"kafka": {**PLAIN, "sasl_username": "labeller"}},
        "secrets": [
            {"setting": f"kafka.sasl_{name}", "secretName": "login", "key": name}
            for name in ("username", "password")
        ],
        "keda": KEDA,
    }
    spec = one(render(tmp_path, values), "TriggerAuthentication")["spec"]
    assert [each["parameter"] for each in spec["secretTargetRef"]] == ["username", "password"]
    assert "configMapTargetRef" not in spec
    assert not any(
        key.startswith("keda.") for key in one(render(tmp_path, values), "ConfigMap")["data"]
    )


def test_keda_takes_a_role_that_it_is_told(tmp_path: Path) -> None:
    kafka = {
        "security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM",
        "sasl_aws_region": "eu-west-1", "sasl_aws_role_arn": "arn:aws:iam::1:role/labels",
    }  # fmt: skip
    keda = KEDA | {"podIdentity": {"roleArn": "arn:aws:iam::1:role/keda"}}
    spec = one(
        render(tmp_path, {"settings": {"kafka": kafka}, "keda": keda}), "TriggerAuthentication"
    )
    assert spec["spec"]["podIdentity"] == {"provider": "aws", "roleArn": "arn:aws:iam::1:role/keda"}


def test_a_network_policy_lets_nobody_in_if_nobody_is_named(tmp_path: Path) -> None:
    """A rule without a peer is for every peer."""
    policy = {"enabled": True, "ingressFrom": []}
    spec = one(render(tmp_path, {"networkPolicy": policy}), "NetworkPolicy")["spec"]
    assert spec["ingress"] == []
    assert "Ingress" in spec["policyTypes"]


def test_a_network_policy_opens_the_endpoints_of_aws(tmp_path: Path) -> None:
    kafka = {
        "security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM", "bootstrap_servers": "msk:9098",
    }  # fmt: skip
    values = {"networkPolicy": {"enabled": True}, "settings": {"kafka": kafka}}
    spec = one(render(tmp_path, values), "NetworkPolicy")["spec"]
    assert {port["port"] for rule in spec["egress"] for port in rule["ports"]} == {53, 9098, 443}


def test_several_models_stand_in_place_of_the_one_that_the_values_begin_with(
    tmp_path: Path,
) -> None:
    """On a GPU, each of them computes there; one of the hub is fetched beforehand."""
    routes = [{"model": "mood", "label": ["NEGATIVE"], "topic": "posts.angry"}]
    values = {"settings": {"models": HUB, "routes": routes}}
    file = tmp_path / "streamlabel.toml"
    file.write_text(settings_file(render(tmp_path, values)))
    settings = load(config=file, environ={}).settings
    assert [(name, one.name) for name, one in settings.models.items()] == [
        ("mood", "bundled"),
        ("tone", "unitary/toxic-bert"),
    ]
    assert [route.topic for route in settings.routes] == ["posts.angry"]
    assert [one["name"] for one in pod(render(tmp_path, values))["initContainers"]] == ["model"]
    local = {"settings": {"models": {"mood": HUB["mood"]}}}
    assert "initContainers" not in pod(render(tmp_path, local))
    on_gpu = render(tmp_path, values | {"gpu": {"enabled": True}})
    file.write_text(settings_file(on_gpu))
    models = load(config=file, environ={}).settings.models
    assert [one.device for one in models.values()] == ["cuda", "cuda"]
