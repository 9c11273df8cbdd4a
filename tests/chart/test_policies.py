"""Rules that every pod of the chart keeps: no root, no token, no secret in the open, limits.

Each rule is a function that returns the faults of manifests. The examples have none, and a copy
with a planted fault shows that the rule finds it.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.charts import EXAMPLES, Manifest, container, example, needs_helm, one, pod
from tests.support.charts import workload as workload_of

Faults = Iterator[str]
Rule = Callable[[list[Manifest]], Faults]
Plant = Callable[[list[Manifest]], Any]

pytestmark = needs_helm


def _containers(manifests: list[Manifest]) -> list[dict[str, Any]]:
    spec = pod(manifests)
    return [*spec.get("initContainers", []), *spec["containers"]]


def unprivileged(manifests: list[Manifest]) -> Faults:
    """Check the user, the root file system, capabilities and system calls."""
    security = pod(manifests)["securityContext"]
    if not security.get("runAsNonRoot") or security.get("runAsUser") != 10001:
        yield "the pod may run as root, or not as the image's user"
    if security.get("seccompProfile") != {"type": "RuntimeDefault"}:
        yield "system calls are not filtered"
    for item in _containers(manifests):
        context = item.get("securityContext", {})
        if context.get("readOnlyRootFilesystem") is not True:
            yield f"{item['name']} may write to its image"
        if context.get("allowPrivilegeEscalation") is not False or context.get("privileged"):
            yield f"{item['name']} may gain rights"
        if context.get("capabilities") != {"drop": ["ALL"]}:
            yield f"{item['name']} has capabilities"


def tokenless(manifests: list[Manifest]) -> Faults:
    """Check that no pod has a key to Kubernetes, and no right that another pod has."""
    account = one(manifests, "ServiceAccount")
    if account["automountServiceAccountToken"] is not False:
        yield "the account's token is mounted"
    if pod(manifests).get("automountServiceAccountToken") is not False:
        yield "the pod mounts a token"
    if pod(manifests).get("serviceAccountName") != account["metadata"]["name"]:
        yield "the pod uses an account that others use"
    if any(pod(manifests).get(name) for name in ("hostNetwork", "hostPID", "hostIPC")):
        yield "the pod shares its node's namespaces"
    if any("hostPath" in volume for volume in pod(manifests)["volumes"]):
        yield "the pod mounts a folder of its node"


def pinned(manifests: list[Manifest]) -> Faults:
    """Check that every image has a version, and is pulled again only for another one."""
    for item in _containers(manifests):
        if not re.search(r":[\w.-]+$|@sha256:[0-9a-f]{64}$", item["image"]):
            yield f"{item['name']} has an image without a version"
        if re.search(r":latest$", item["image"]):
            yield f"{item['name']} has the image of today"
        if item.get("imagePullPolicy") != "IfNotPresent":
            yield f"{item['name']} needs the registry at each start"


def limited(manifests: list[Manifest]) -> Faults:
    """Check that memory and CPU are limited, and that a worker is given what it may use."""
    for item in _containers(manifests):
        resources = item.get("resources", {})
        for name in ("cpu", "memory"):
            if name not in resources.get("limits", {}):
                yield f"{item['name']} has no limit of {name}"
            elif resources.get("requests", {}).get(name) != resources["limits"][name]:
                yield f"{item['name']} may be given less {name} than its limit"
    for volume in pod(manifests)["volumes"]:
        if volume["name"] == "cache" and "emptyDir" in volume and not volume["emptyDir"]:
            yield "the cache may fill its node's disk"


def probed(manifests: list[Manifest]) -> Faults:
    """Check the three probes; a broker that is away must not restart a worker."""
    paths = {"startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"}
    for probe, path in paths.items():
        asked = container(manifests).get(probe, {}).get("httpGet")
        if asked != {"path": path, "port": "http"}:
            yield f"{probe} asks for {asked}"
    if container(manifests).get("terminationMessagePolicy") != "FallbackToLogsOnError":
        yield "a worker that ended does not say why"


def secretive(manifests: list[Manifest]) -> Faults:
    """Check that secrets are files, by reference, and that no manifest has one in it."""
    for item in _containers(manifests):
        for variable in item.get("env", []):
            if "secretKeyRef" in variable.get("valueFrom", {}):
                yield f"{variable['name']} is a secret in a variable"
            if re.search(r"(PASSWORD|SECRET|TOKEN)$", variable["name"]) and variable.get("value"):
                yield f"{variable['name']} has its secret in the manifest"
        if any("secretRef" in source for source in item.get("envFrom", [])):
            yield f"{item['name']} has a Secret in its variables"
    for volume in pod(manifests)["volumes"]:
        if volume["name"] == "secrets" and volume["projected"]["defaultMode"] & 0o007:
            yield "every user may read the secrets"


def discreet(manifests: list[Manifest]) -> Faults:
    """Check that no object has a secret in it."""
    for manifest in manifests:
        if manifest["kind"] == "Secret":
            yield "the chart has a Secret of its own"
        for text in manifest.get("data", {}).values():
            if re.search(r"^ *\w*(password|secret|token) *=", text, re.MULTILINE):
                yield f"{manifest['kind']} {manifest['metadata']['name']} has a secret"


def disruptable(manifests: list[Manifest]) -> Faults:
    """Check that a drain takes one worker at a time, and that the budget is for these pods."""
    labels = workload_of(manifests)["spec"]["template"]["metadata"]["labels"]
    budget = one(manifests, "PodDisruptionBudget")["spec"]
    if budget.get("maxUnavailable") != 1:
        yield "a drain may stop several workers at a time"
    for manifest in manifests:
        selector = manifest.get("spec", {}).get("selector", {})
        selector = selector.get("matchLabels", selector)
        if not selector.items() <= labels.items():
            yield f"{manifest['kind']} selects no pod"
    spread = pod(manifests).get("topologySpreadConstraints", [])
    if "kubernetes.io/hostname" not in {each["topologyKey"] for each in spread}:
        yield "all workers may be on one node"


RULES: list[Rule] = [
    unprivileged,
    tokenless,
    pinned,
    limited,
    probed,
    secretive,
    discreet,
    disruptable,
]

FAULTS: list[tuple[Rule, Plant]] = [
    (unprivileged, lambda m: pod(m)["securityContext"].update(runAsNonRoot=False)),
    (unprivileged, lambda m: pod(m)["securityContext"].pop("seccompProfile")),
    (unprivileged, lambda m: pod(m)["securityContext"].update(runAsUser=0)),
    (unprivileged, lambda m: container(m)["securityContext"].pop("readOnlyRootFilesystem")),
    (unprivileged, lambda m: container(m)["securityContext"].update(allowPrivilegeEscalation=True)),
    (unprivileged, lambda m: container(m)["securityContext"]["capabilities"].update(add=["SYS_PTRACE"])),
    (tokenless, lambda m: pod(m).pop("automountServiceAccountToken")),
    (tokenless, lambda m: one(m, "ServiceAccount").update(automountServiceAccountToken=True)),
    (tokenless, lambda m: pod(m).update(serviceAccountName="default")),
    (tokenless, lambda m: pod(m).update(hostNetwork=True)),
    (tokenless, lambda m: pod(m)["volumes"].append({"name": "node", "hostPath": {"path": "/"}})),
    (pinned, lambda m: container(m).update(image="streamlabel:latest")),
    (pinned, lambda m: container(m).update(image="registry:5000/streamlabel")),
    (pinned, lambda m: container(m).update(imagePullPolicy="Always")),
    (limited, lambda m: container(m)["resources"]["limits"].pop("memory")),
    (limited, lambda m: container(m)["resources"]["limits"].pop("cpu")),
    (limited, lambda m: container(m)["resources"]["requests"].update(cpu="100m")),
    (limited, lambda m: _volume(m, "cache").update(emptyDir={})),
    (probed, lambda m: container(m).pop("startupProbe")),
    (probed, lambda m: container(m)["livenessProbe"]["httpGet"].update(path="/readyz")),
    (probed, lambda m: container(m)["readinessProbe"]["httpGet"].update(path="/livez")),
    (probed, lambda m: container(m).pop("terminationMessagePolicy")),
    (secretive, lambda m: container(m)["env"].append(
        {"name": "STREAMLABEL_KAFKA_SASL_PASSWORD", "value": "hunter2"})),
    (secretive, lambda m: container(m)["env"].append(
        {"name": "PASS", "valueFrom": {"secretKeyRef": {"name": "kafka-login", "key": "password"}}})),
    (secretive, lambda m: container(m).update(envFrom=[{"secretRef": {"name": "kafka-login"}}])),
    (discreet, lambda m: m.append({"kind": "Secret", "data": {}})),
    (discreet, lambda m: one(m, "ConfigMap")["data"].update(
        {"streamlabel.toml": '[kafka]\nsasl_password = "hunter2"\n'})),
    (secretive, lambda m: _volume(m, "secrets")["projected"].update(defaultMode=0o444)),
    (disruptable, lambda m: one(m, "PodDisruptionBudget")["spec"].update(maxUnavailable="50%")),
    (disruptable, lambda m: one(m, "Service")["spec"]["selector"].update(app="other")),
    (disruptable, lambda m: pod(m).update(topologySpreadConstraints=[])),
]  # fmt: skip


def _volume(manifests: list[Manifest], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(v for v in pod(manifests)["volumes"] if v["name"] == name)
    return found


@pytest.mark.parametrize("name", [file.stem for file in EXAMPLES])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_an_example_keeps_the_rule(rule: Rule, name: str) -> None:
    assert list(rule(example(name))) == []


@pytest.mark.parametrize(
    ("rule", "plant"), FAULTS, ids=[f"{rule.__name__}-{n}" for n, (rule, _) in enumerate(FAULTS)]
)
def test_the_rule_finds_a_planted_fault(rule: Rule, plant: Plant) -> None:
    manifests = copy.deepcopy(example("sasl-ssl"))
    plant(manifests)
    assert list(rule(manifests))
