"""Helm refuses wrong values before it installs anything, in words that say what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy import generate
from deploy.values_table import values_table
from tests.docs.test_site import blocks
from tests.support.charts import CHART, ROOT, Refused, container, needs_helm, pod, render, workload

KEDA = {"enabled": True, "maxReplicaCount": 6}
SASL = {"security_protocol": "SASL_SSL"}
MSK = {**SASL, "sasl_mechanism": "AWS_MSK_IAM", "sasl_aws_region": "eu-west-1"}

# The fault, the values, and words of the message.
SCHEMA: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown value": ({"replicas": 2}, "additional properties 'replicas' not allowed"),
    "an unknown setting": (
        {"settings": {"kafka": {"grop_id": "posts"}}},
        "at '/settings/kafka': additional properties 'grop_id' not allowed",
    ),
    "a setting out of bounds": (
        {"settings": {"kafka": {"session_timeout": 0}}},
        "at '/settings/kafka/session_timeout': minimum: got 0, want 1",
    ),
    "a choice that there is not": (
        {"settings": {"delivery": "at_most_once"}},
        "value must be one of 'at_least_once', 'exactly_once'",
    ),
    "a number as text": (
        {"settings": {"processes": "four"}},
        "at '/settings/processes': got string, want integer",
    ),
    "a secret among the settings": (
        {"settings": {"kafka": {"sasl_password": "hunter2"}}},
        "in a Secret: secrets: [{setting: kafka.sasl_password, secretName: ..., key: ...}]",
    ),
    "a secret with a wrong name": (
        {"secrets": [{"setting": "kafka.password", "secretName": "login", "key": "password"}]},
        "at '/secrets/0/setting': value must be one of 'kafka.sasl_username', 'kafka.sasl_password'",
    ),
    "a secret for nothing": (
        {"secrets": [{"secretName": "login", "key": "password"}]},
        "missing property 'setting'",
    ),
    "no page for the probes": (
        {"settings": {"http": {"enabled": False}}},
        "at '/settings/http/enabled': value must be true",
    ),
    "a tag in the repository": (
        {"image": {"repository": "streamlabel:1"}},
        "at '/image/repository': 'streamlabel:1' does not match pattern",
    ),
    "an alert that there is not": (
        {"prometheusRule": {"disabled": ["Down"]}},
        "at '/prometheusRule/disabled/0': value must be one of 'StreamlabelDown'",
    ),
    "a name that is none": (
        {"fullnameOverride": "Foo_Bar"},
        "at '/fullnameOverride': 'Foo_Bar' does not match pattern",
    ),
    "workers that idle": (
        {"keda": {**KEDA, "minReplicaCount": 3, "idleReplicaCount": 1}},
        "at '/keda/idleReplicaCount': value must be one of 0, <nil>",
    ),
    "a threshold of nothing": ({"keda": {"lagThreshold": 0}}, "minimum: got 0, want 1"),
}
TEMPLATES: dict[str, tuple[dict[str, Any], str]] = {
    "a grace period that is too short": (
        {"terminationGracePeriodSeconds": 30},
        "a worker may drain for 30 s (settings.shutdown_timeout, and 10 s more with",
    ),
    "a grace period that is too short for a pool": (
        {"terminationGracePeriodSeconds": 40, "settings": {"processes": 2}},
        "a worker may drain for 40 s",
    ),
    "static members without stable names": (
        {"workload": "Deployment", "settings": {"kafka": {"group_instance_id": "posts"}}},
        "settings.kafka.group_instance_id needs a StatefulSet",
    ),
    "a name that no Service may have": (
        {"nameOverride": "Foo_Bar"},
        "labeller-Foo_Bar can't be the name of a Service",
    ),
    "an address that no probe reaches": (
        {"settings": {"http": {"host": "127.0.0.1"}}},
        "settings.http.host is 127.0.0.1: the probes reach a pod at its own address",
    ),
    "a broker without a port": (
        {"settings": {"kafka": {"bootstrap_servers": ["a:9092", "b"]}}},
        "settings.kafka.bootstrap_servers: b has no port: write host:port",
    ),
    "a budget of nothing": (
        {"podDisruptionBudget": {"maxUnavailable": None}},
        "podDisruptionBudget has neither maxUnavailable nor minAvailable",
    ),
    "two secrets for one setting": (
        {"secrets": 2 * [{"setting": "http.token", "secretName": "page", "key": "token"}]},
        "secrets has two entries for http.token: keep one",
    ),
    "a password in the registry's address": (
        {"settings": {"registry": {"url": "https://a:8081,https://me:hunter2@b:8081"}}},
        "settings.registry.url has a user name or a password in its address",
    ),
    "a password in the token endpoint's address": (
        {"settings": {"kafka": {"sasl_oauth_token_url": "https://me:hunter2@id.example/token"}}},
        "settings.kafka.sasl_oauth_token_url has a user name or a password in its address",
    ),
    "no limit of memory": (
        {"resources": {"limits": {"memory": None}}},
        "resources.limits.memory is not set",
    ),
    "no limit of CPU": ({"resources": {"limits": {"cpu": None}}}, "resources.limits.cpu is not set"),
    "KEDA without a bound": ({"keda": {"enabled": True}}, "keda.maxReplicaCount is not set"),
    "KEDA with crossed bounds": (
        {"keda": {**KEDA, "minReplicaCount": 7}},
        "keda.minReplicaCount (7) is more than keda.maxReplicaCount (6)",
    ),
    "KEDA that idles above its minimum": (
        {"keda": {**KEDA, "idleReplicaCount": 0}},
        "keda.idleReplicaCount (0) must be below keda.minReplicaCount (0)",
    ),
    "KEDA with idle workers": (
        {"keda": {**KEDA, "allowIdleConsumers": True}},
        "keda.allowIdleConsumers needs keda.limitToPartitionsWithLag: false",
    ),
    "KEDA at zero with a pattern": (
        {"keda": KEDA, "settings": {"input": {"topic_pattern": "chat-.*"}}},
        "settings.input.topic_pattern needs keda.minReplicaCount of 1 or more",
    ),
    "KEDA with Kerberos": (
        {"keda": KEDA, "settings": {"kafka": {**SASL, "sasl_mechanism": "GSSAPI"}}},
        "your own TriggerAuthentication in keda.authenticationRef",
    ),
    "KEDA with MSK of no region": (
        {"keda": KEDA, "settings": {"kafka": {**SASL, "sasl_mechanism": "AWS_MSK_IAM"}}},
        "KEDA needs settings.kafka.sasl_aws_region",
    ),
    "KEDA with a role of the worker": (
        {"keda": KEDA, "settings": {"kafka": {**MSK, "sasl_aws_role_arn": "arn:aws:iam::1:role/a"}}},
        "KEDA does not use settings.kafka.sasl_aws_role_arn: name the role that it takes in keda.pod",
    ),
    "KEDA with a profile of the worker": (
        {"keda": KEDA, "settings": {"kafka": {**MSK, "sasl_aws_profile": "labels"}}},
        "KEDA does not use settings.kafka.sasl_aws_profile",
    ),
    "KEDA with a client that signs in by form": (
        {"keda": KEDA, "settings": {"kafka": {"sasl_oauth_client_auth": "post"}}},
        "KEDA has nothing like settings.kafka.sasl_oauth_client_auth",
    ),
    "KEDA with a token in a file": (
        {"keda": KEDA, "settings": {"kafka": {"sasl_oauth_token_file": "/var/run/token"}}},
        "KEDA has nothing like kafka.sasl_oauth_token_file",
    ),
    "KEDA with a proxy": (
        {"keda": KEDA, "secrets": [{"setting": "kafka.proxy_url", "secretName": "p", "key": "url"}]},
        "KEDA has nothing like kafka.proxy_url",
    ),
    "KEDA with a file in the pods": (
        {"keda": KEDA, "settings": {"kafka": {"ssl_cafile": "/ca.pem"}}},
        "KEDA can't read settings.kafka.ssl_cafile, a path in the pods: list it in secrets",
    ),
}  # fmt: skip
CASES = SCHEMA | TEMPLATES


@needs_helm
@pytest.mark.parametrize("case", CASES)
def test_wrong_values_are_refused(case: str, tmp_path: Path) -> None:
    values, words = CASES[case]
    with pytest.raises(Refused) as refused:
        render(tmp_path, values)
    message = str(refused.value)
    assert words in message
    assert "hunter2" not in message


@needs_helm
def test_a_trigger_authentication_of_one_s_own_is_taken(tmp_path: Path) -> None:
    kafka = {**SASL, "sasl_mechanism": "GSSAPI"}
    keda = {**KEDA, "authenticationRef": {"name": "mine", "kind": "ClusterTriggerAuthentication"}}
    manifests = render(tmp_path, {"keda": keda, "settings": {"kafka": kafka}})
    kinds = {manifest["kind"] for manifest in manifests}
    assert ("ScaledObject" in kinds, "TriggerAuthentication" in kinds) == (True, False)


@needs_helm
def test_the_values_of_the_documentation_are_accepted(tmp_path: Path) -> None:
    pages = (ROOT / "docs" / "kubernetes.md", CHART / "README.md")
    examples = [text for page in pages for text in blocks(page, "yaml")]
    assert len(examples) >= 4
    for text in examples:
        assert workload(render(tmp_path, yaml.safe_load(text)))


@needs_helm
@pytest.mark.parametrize(
    ("values", "image"),
    [
        ({"image": {"tag": "1.2"}}, "ghcr.io/streamlabel/streamlabel:1.2"),
        ({"image": {"repository": "localhost:5000/mine"}}, "localhost:5000/mine:VERSION"),
        (
            {"image": {"digest": f"sha256:{64 * 'a'}"}},
            f"ghcr.io/streamlabel/streamlabel@sha256:{64 * 'a'}",
        ),
        ({"gpu": {"enabled": True}}, "ghcr.io/streamlabel/streamlabel:VERSION-cuda"),
        ({"gpu": {"enabled": True}, "image": {"tag": "1"}}, "ghcr.io/streamlabel/streamlabel:1"),
    ],
)
def test_the_image_is_the_one_that_was_asked_for(
    values: dict[str, Any], image: str, tmp_path: Path
) -> None:
    version = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))["appVersion"]
    manifests = render(tmp_path, values)
    assert container(manifests)["image"] == image.replace("VERSION", version)


@needs_helm
def test_what_people_add_to_a_pod_is_there(tmp_path: Path) -> None:
    added: dict[str, Any] = {
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
        "extraEnvFrom": [{"configMapRef": {"name": "more"}}],
        "extraVolumes": [{"name": "more", "emptyDir": {}}],
        "extraVolumeMounts": [{"name": "more", "mountPath": "/more"}],
        "extraContainers": [{"name": "side"}],
        "initContainers": [{"name": "first"}],
        "podAnnotations": {"linkerd.io/inject": "enabled"},
        "podLabels": {"team": "data"},
        "commonLabels": {"cost": "42"},
        "affinity": {"nodeAffinity": {}},
        "nodeSelector": {"pool": "big"},
        "tolerations": [{"operator": "Exists"}],
        "topologySpreadConstraints": [{"topologyKey": "rack"}],
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "registry"}],
        "terminationGracePeriodSeconds": 99,
        "fullnameOverride": "posts",
        "serviceAccount": {"create": False, "name": "mine"},
    }
    manifests = render(tmp_path, added)
    made = workload(manifests)
    spec, template = pod(manifests), made["spec"]["template"]
    worker = next(item for item in spec["containers"] if item["name"] == "streamlabel")
    assert made["metadata"]["name"] == "posts"
    assert added["extraEnv"][0] in worker["env"]
    assert worker["envFrom"] == added["extraEnvFrom"]
    assert added["extraVolumes"][0] in spec["volumes"]
    assert added["extraVolumeMounts"][0] in worker["volumeMounts"]
    assert added["extraContainers"][0] in spec["containers"]
    assert added["initContainers"][0] in spec["initContainers"]
    assert added["podAnnotations"].items() <= template["metadata"]["annotations"].items()
    assert {"team": "data", "cost": "42"}.items() <= template["metadata"]["labels"].items()
    assert made["metadata"]["labels"]["cost"] == "42"
    for name in ("affinity", "nodeSelector", "tolerations", "topologySpreadConstraints",
                 "priorityClassName", "imagePullSecrets", "terminationGracePeriodSeconds"):  # fmt: skip
        assert spec[name] == added[name]
    assert spec["serviceAccountName"] == "mine"
    assert "ServiceAccount" not in {manifest["kind"] for manifest in manifests}


def test_the_defaults_and_the_examples_fit_the_schema() -> None:
    """Without Helm too."""
    schema = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft7Validator.check_schema(schema)
    validator = jsonschema.Draft7Validator(schema)
    defaults = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
    assert list(validator.iter_errors(defaults)) == []
    assert set(schema["properties"]) == {*defaults, "global"}
    for values, _ in SCHEMA.values():
        assert list(validator.iter_errors(defaults | values))


def test_the_generated_files_are_up_to_date(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert generate.main(["--check"]) == 0, capsys.readouterr().err
    copy = tmp_path / "chart"
    shutil.copytree(CHART, copy)
    monkeypatch.setattr(generate, "CHART", copy)
    monkeypatch.setattr(generate, "PLAIN", tmp_path / "kubernetes")
    (copy / "files" / "alerts.yml").write_text("groups: []\n")
    assert generate.main(["--check"]) == 1
    assert "alerts.yml is stale: run python -m deploy.generate" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert generate.main(["--check"]) == 0


def test_the_table_of_values_has_each_value_with_its_comment() -> None:
    text = "# How many\n# of them\ncount: 2\nimage:\n  tag: a\n  # The rule\n  pull: {b: [1]}\n"
    assert values_table(text).splitlines()[2:] == [
        "| `count` | `2` | How many of them |",
        '| `image.tag` | `"a"` |  |',
        '| `image.pull` | `{"b": [1]}` | The rule |',
    ]
