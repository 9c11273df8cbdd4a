"""The chart names only variables, settings, ports, paths, files, users and alerts that exist.

Each check is a function that returns the faults of manifests. The examples have none, and a copy
with a planted fault shows that the check finds it.
"""

from __future__ import annotations

import copy
import io
import json
import re
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import generate
from tests.deploy.project import Project
from tests.release.versions import semantic
from tests.support.charts import (
    CHART,
    EXAMPLES,
    ROOT,
    Manifest,
    container,
    environment,
    example,
    needs_helm,
    one,
    pod,
    render,
    settings_file,
    workload,
)
from worker.cli.parser import build_parser
from worker.http.guard import PROBES
from worker.settings import Settings, load, options

Faults = Iterator[str]
Check = Callable[[list[Manifest], Path], Faults]
Plant = Callable[[list[Manifest]], Any]

SECRETS = "/etc/streamlabel/secrets"
HUB = {"HF_HOME", "HF_HUB_OFFLINE"}  # of the hub's library
TEMPLATES = {
    file.name: file.read_text(encoding="utf-8") for file in sorted((CHART / "templates").iterdir())
}


def accepted(manifests: list[Manifest], folder: Path) -> Settings:
    """Return the settings as the worker reads them in its pod, whose files are in `folder`.

    Raises:
        SettingsError: the worker refuses them.
    """
    config = folder / "streamlabel.toml"
    config.write_text(settings_file(manifests), encoding="utf-8")
    for path in _mounted_secrets(manifests):
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_text("content-of-a-secret", encoding="utf-8")
    variables = environment(manifests)
    environ = {name: value.replace(SECRETS, str(folder)) for name, value in variables.items()}
    loaded = load(environ=_image() | environ, config=config)
    assert loaded.warnings == ()
    return loaded.settings


def _image() -> dict[str, str]:
    return Project(ROOT).image_environment


def _mounted_secrets(manifests: list[Manifest]) -> list[str]:
    return [
        item["path"]
        for volume in pod(manifests)["volumes"]
        if volume["name"] == "secrets"
        for source in volume["projected"]["sources"]
        for item in source["secret"]["items"]
    ]


def variables(manifests: list[Manifest], folder: Path) -> Faults:
    """Check that each variable is a setting, and that each file it names is mounted."""
    known = {name for option in options() for name in option.env}
    known |= {"STREAMLABEL_CONFIG", "STREAMLABEL_SECRETS_DIR", "POD_NAME", *HUB}
    mounts = {mount["mountPath"] for mount in container(manifests)["volumeMounts"]}
    files = {f"{SECRETS}/{path}" for path in _mounted_secrets(manifests)}
    for item in container(manifests)["env"]:
        name, value = item["name"], item.get("value", "")
        if name not in known and f"{SECRETS}/files/{name}" not in files:
            yield f"{name} is not a setting"
        if value.startswith("/") and not {value, str(Path(value).parent)} & (mounts | files):
            yield f"{name} names {value}, which is not mounted"
    for path in _mounted_secrets(manifests):
        if "/" not in path and path not in known:
            yield f"the secret {path} has the name of no variable"


def volumes(manifests: list[Manifest], folder: Path) -> Faults:
    """Check that each mount has a volume, and that the image's writable folders are mounted."""
    declared = {volume["name"] for volume in pod(manifests)["volumes"]}
    mounts = {mount["mountPath"]: mount for mount in container(manifests)["volumeMounts"]}
    for path, mount in mounts.items():
        if mount["name"] not in declared:
            yield f"{path} has no volume"
    yield from (
        f"{name} is not mounted" for name in declared - {m["name"] for m in mounts.values()}
    )
    for path in (Project(ROOT).instruction("VOLUME"), "/tmp"):
        if mounts.get(path, {"readOnly": True}).get("readOnly"):
            yield f"{path} can't be written"
    config = one([m for m in manifests if "streamlabel.toml" in m.get("data", {})], "ConfigMap")
    source = next(v for v in pod(manifests)["volumes"] if v["name"] == "settings")
    if source["configMap"]["name"] != config["metadata"]["name"]:
        yield "the settings come from a ConfigMap that is not there"
    if mounts[environment(manifests)["STREAMLABEL_CONFIG"]].get("subPath") not in config["data"]:
        yield "the settings are not a key of the ConfigMap"


def ports(manifests: list[Manifest], folder: Path) -> Faults:
    """Check that Service, monitor and probes ask the port and the paths that the worker serves."""
    http = accepted(manifests, folder).http
    [port] = container(manifests)["ports"]
    if port["containerPort"] != http.port:
        yield f"the container has port {port['containerPort']}, the worker listens at {http.port}"
    if http.host != "0.0.0.0":
        yield f"the worker listens at {http.host}, which other pods can't reach"
    [served] = one(manifests, "Service")["spec"]["ports"]
    if served["port"] != http.port or served["targetPort"] != port["name"]:
        yield f"the Service forwards {served['port']} to {served['targetPort']}"
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container(manifests)[probe]["httpGet"]
        if asked["path"] not in PROBES or asked["port"] != port["name"]:
            yield f"{probe} asks {asked['path']} at {asked['port']}"
    for manifest in manifests:
        if manifest["kind"] == "PodMonitor":
            [endpoint] = manifest["spec"]["podMetricsEndpoints"]
            if endpoint["path"] != "/metrics" or endpoint["port"] != port["name"]:
                yield f"Prometheus asks {endpoint['path']} at {endpoint['port']}"


def commands(manifests: list[Manifest], folder: Path) -> Faults:
    """Check that each command exists, and that an init container fills the hub's cache."""
    default = json.loads(Project(ROOT).instruction("CMD"))
    own = [*pod(manifests).get("initContainers", []), *pod(manifests)["containers"]]
    for item in own:
        command = item.get("args", default)
        with redirect_stderr(io.StringIO()) as errors:
            try:
                build_parser(command).parse_args(command)
            except SystemExit:
                yield f"{item['name']}: {errors.getvalue().splitlines()[-1]}"
    fetched = accepted(manifests, folder).model.name != "bundled"
    offline = environment(manifests).get("HF_HUB_OFFLINE") == "1"
    if {fetched, offline} != {"initContainers" in pod(manifests)}:
        yield "the worker looks for a model where no init container put it"
    for item in own if fetched else []:
        homes = [e.get("value") for e in item["env"] if e["name"] == "HF_HOME"]
        if homes != [f"{Project(ROOT).instruction('VOLUME')}/hub"]:
            yield f"{item['name']} has the hub's cache at {homes}"


def stopping(manifests: list[Manifest], folder: Path) -> Faults:
    """Check that a worker has the time to drain, and the parent of several to see them end."""
    settings = accepted(manifests, folder)
    needed = settings.shutdown_timeout + (10 if settings.processes > 1 else 0)
    given = pod(manifests)["terminationGracePeriodSeconds"]
    if given < needed + 10:
        yield f"a worker may drain for {needed:g} s and is killed after {given}"


def user(manifests: list[Manifest], folder: Path) -> Faults:
    """Check that the pod has the image's user, who may read the mounted secrets."""
    security = pod(manifests)["securityContext"]
    if str(security["runAsUser"]) != Project(ROOT).instruction("USER").partition(":")[0]:
        yield f"the image has no user {security['runAsUser']}"
    if security.get("fsGroup") != security["runAsGroup"]:
        yield "the worker is not in the group that may read its secrets"


def scaling(manifests: list[Manifest], folder: Path) -> Faults:
    """Check that KEDA scales this workload, on the topics and the group that its workers read."""
    settings = accepted(manifests, folder)
    for manifest in manifests:
        if manifest["kind"] != "ScaledObject":
            continue
        target, scaled = manifest["spec"]["scaleTargetRef"], workload(manifests)
        if (target["kind"], target["name"]) != (scaled["kind"], scaled["metadata"]["name"]):
            yield f"KEDA scales {target['kind']} {target['name']}"
        asked = [trigger["metadata"] for trigger in manifest["spec"]["triggers"]]
        if tuple(each["topic"] for each in asked) != settings.topics.inputs:
            yield "KEDA looks at other topics than the workers"
        if {each["consumerGroup"] for each in asked} != {settings.kafka.group_id}:
            yield "KEDA looks at another group"
        if {each["bootstrapServers"] for each in asked} != {settings.kafka.bootstrap_servers}:
            yield "KEDA asks other brokers"
        if {each["offsetResetPolicy"] for each in asked} != {settings.input.start}:
            yield "KEDA takes another start of a new group for granted"


CHECKS: list[Check] = [variables, volumes, ports, commands, stopping, user, scaling]

FAULTS: list[tuple[Check, Plant]] = [
    (variables, lambda m: container(m)["env"].append({"name": "STREAMLABEL_DELIVRY", "value": "x"})),
    (variables, lambda m: _variable(m, "STREAMLABEL_CONFIG").update(value="/etc/streamlabel.toml")),
    (variables, lambda m: _variable(m, "STREAMLABEL_KAFKA_SSL_CAFILE").update(value="/etc/ca.crt")),
    (variables, lambda m: _secret(m)["items"][0].update(path="KAFKA_PASSWORD")),
    (volumes, lambda m: container(m)["volumeMounts"].append({"name": "more", "mountPath": "/more"})),
    (volumes, lambda m: pod(m)["volumes"].append({"name": "unused", "emptyDir": {}})),
    (volumes, lambda m: _mount(m, "/tmp").update(mountPath="/var/tmp")),
    (volumes, lambda m: _mount(m, "/var/lib/streamlabel").update(readOnly=True)),
    (volumes, lambda m: pod(m)["volumes"][0]["configMap"].update(name="other")),
    (volumes, lambda m: container(m)["volumeMounts"][0].update(subPath="settings.toml")),
    (ports, lambda m: container(m)["ports"][0].update(containerPort=9101)),
    (ports, lambda m: _variable(m, "STREAMLABEL_HTTP_HOST").update(value="127.0.0.1")),
    (ports, lambda m: one(m, "Service")["spec"]["ports"][0].update(port=80)),
    (ports, lambda m: one(m, "Service")["spec"]["ports"][0].update(targetPort="metrics")),
    (ports, lambda m: container(m)["startupProbe"]["httpGet"].update(path="/healthz")),
    (commands, lambda m: container(m).update(args=["label"])),
    (commands, lambda m: container(m)["env"].append({"name": "HF_HUB_OFFLINE", "value": "1"})),
    (commands, lambda m: pod(m).update(initContainers=[{"name": "model", "args": ["model", "get"]}])),
    (stopping, lambda m: pod(m).update(terminationGracePeriodSeconds=30)),
    (user, lambda m: pod(m)["securityContext"].update(runAsUser=1000)),
    (user, lambda m: pod(m)["securityContext"].pop("fsGroup")),
    (scaling, lambda m: one(m, "ScaledObject")["spec"]["scaleTargetRef"].update(name="other")),
    (scaling, lambda m: _trigger(m).update(topic="texts.in")),
    (scaling, lambda m: _trigger(m).update(consumerGroup="other")),
    (scaling, lambda m: _trigger(m).update(bootstrapServers="localhost:9092")),
    (scaling, lambda m: _trigger(m).update(offsetResetPolicy="latest")),
]  # fmt: skip


def _variable(manifests: list[Manifest], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(e for e in container(manifests)["env"] if e["name"] == name)
    return found


def _mount(manifests: list[Manifest], path: str) -> dict[str, Any]:
    mounts = container(manifests)["volumeMounts"]
    found: dict[str, Any] = next(mount for mount in mounts if mount["mountPath"] == path)
    return found


def _secret(manifests: list[Manifest]) -> dict[str, Any]:
    volume = next(volume for volume in pod(manifests)["volumes"] if volume["name"] == "secrets")
    found: dict[str, Any] = volume["projected"]["sources"][0]["secret"]
    return found


def _trigger(manifests: list[Manifest]) -> dict[str, Any]:
    found: dict[str, Any] = one(manifests, "ScaledObject")["spec"]["triggers"][0]["metadata"]
    return found


@needs_helm
@pytest.mark.parametrize("name", [file.stem for file in EXAMPLES])
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_an_example_names_exists(check: Check, name: str, tmp_path: Path) -> None:
    assert list(check(example(name), tmp_path)) == []


@needs_helm
@pytest.mark.parametrize(
    ("check", "plant"), FAULTS, ids=[f"{check.__name__}-{n}" for n, (check, _) in enumerate(FAULTS)]
)
def test_the_check_finds_a_planted_fault(check: Check, plant: Plant, tmp_path: Path) -> None:
    manifests = copy.deepcopy(example("keda"))
    plant(manifests)
    assert list(check(manifests, tmp_path))


@needs_helm
def test_the_worker_reads_what_helm_was_given(tmp_path: Path) -> None:
    """Numbers, lists and names keep their values on the way through two languages."""
    settings = accepted(example("sasl-ssl"), tmp_path)
    assert settings.kafka.bootstrap_servers == "broker-1.example.com:9093,broker-2.example.com:9093"
    assert settings.kafka.sasl_password
    assert settings.kafka.sasl_password.get_secret_value() == "content-of-a-secret"
    assert settings.kafka.ssl_cafile
    assert settings.wait_for_topics is True


@needs_helm
def test_values_of_every_type_reach_the_worker(tmp_path: Path) -> None:
    """Helm keeps numbers as floats, and its own TOML has 6.4e+07 for 64,000,000."""
    values: dict[str, Any] = {
        "max_inflight_bytes": 64_000_001,
        "commit_interval": 0.25,
        "create_topics": True,
        "input": {"topics": ["a", "b"], "text_path": "post.body"},
        "kafka": {
            "client_id": 'quoted "\\ ü <&> \U0001f600',
            "sasl_oauth_extensions": {"logicalCluster": "lkc-1"},
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "OAUTHBEARER",
            "sasl_oauth_token_file": "/dev/null",
            "extra": {"retry_backoff_ms": 250, "api_version": "4.0", "check_crcs": False},
        },
    }
    settings = accepted(render(tmp_path, {"settings": values}), tmp_path)
    assert settings.max_inflight_bytes == 64_000_001
    assert (settings.commit_interval, settings.create_topics) == (0.25, True)
    assert settings.input.topics == ("a", "b")
    assert settings.kafka.client_id == values["kafka"]["client_id"]
    assert settings.kafka.sasl_oauth_extensions == {"logicalCluster": "lkc-1"}
    assert settings.kafka.extra == {
        "retry_backoff_ms": "250",
        "api_version": "4.0",
        "check_crcs": "false",
    }


def test_settings_that_the_chart_names_exist_and_have_these_defaults() -> None:
    defaults = {option.path: option.field.default for option in options()}
    text = "\n".join(TEMPLATES.values())
    asked = re.findall(r'"streamlabel\.setting" \(list \. "([a-z_.]+)" ([^)]+)\)', text)
    assert len(asked) > 5
    for path, default in asked:
        assert path in defaults
        if default not in ('""', '"0.0.0.0"'):  # nothing, and the address of a container
            assert yaml.safe_load(default) == defaults[path]


def test_every_setting_in_the_chart_s_texts_exists() -> None:
    sections = {option.section for option in options()}
    paths = {option.path for option in options()} | sections
    sources = {**TEMPLATES, "values.yaml": (CHART / "values.yaml").read_text(encoding="utf-8")}
    named = {
        name.rstrip(".")
        for text in sources.values()
        for name in re.findall(r"(?<!\.)\bsettings\.([a-z_.]+)", text)
    }
    named |= {f"kafka.{name}" for name in re.findall(r"\$kafka\.([a-z_]+)", TEMPLATES["_keda.tpl"])}
    named |= set(re.findall(r"^(kafka\.[a-z_]+): ", TEMPLATES["_keda.tpl"], re.MULTILINE))
    assert len(named) > 15
    assert named <= paths


def test_every_alert_that_the_chart_names_exists() -> None:
    named = set(re.findall(r'"(Streamlabel[A-Z]\w+)"', "\n".join(TEMPLATES.values())))
    assert named
    assert named <= set(generate.alerts())


def test_the_chart_has_the_project_s_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert chart["appVersion"] == project["version"]
    assert chart["version"] == semantic(project["version"])
    assert chart["apiVersion"] == "v2"


def test_a_file_option_is_mounted_as_a_file_and_another_as_a_value() -> None:
    """The chart tells them apart by the ending of their names, the worker by their types."""
    fields = {option.path: str(option.field.annotation) for option in options()}
    taken = generate.from_files()
    assert {path for path in taken if path.endswith("file")} == {
        path for path in taken if "Path" in fields[path]
    }
    assert {option.path for option in options() if option.secret} < set(taken)
