"""Every path, port, variable and command in docker-compose.yml exists.

The tests need no container engine: each check is a function that returns the faults of a project.
The project itself has none, and a copy with a planted fault shows that the check finds it.
"""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from tests.deploy.project import PROVISIONING, ROOT, SCRAPING, Project, interpolated, seconds
from worker.cli.main import _parser
from worker.settings import load, options

# Ports and health paths of third-party images, from their documentation.
LISTENS = {"prometheus": {9090: "/-/healthy"}, "grafana": {3000: "/api/health"}}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}

Faults = Iterator[str]


def mounts(project: Project) -> Faults:
    """Check that mounted volumes and paths exist, and that no volume is unused."""
    named = set(project.compose["volumes"])
    used = set()
    for name, service in project.services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("."):
                if not (project.root / source).exists():
                    yield f"{name} mounts {source}, which does not exist"
                continue
            used.add(source)
    yield from (f"volume {name} is not declared" for name in used - named)
    yield from (f"volume {name} is not used" for name in named - used)


def dependencies(project: Project) -> Faults:
    """Check that each service waits for a condition that can come true."""
    for name, service in project.services.items():
        for other, how in service.get("depends_on", {}).items():
            awaited = project.services.get(other)
            if awaited is None:
                yield f"{name} waits for {other}, which is not a service"
            elif how["condition"] not in CONDITIONS:
                yield f"{name} waits for {other} to be {how['condition']}"
            elif how["condition"] == "service_healthy" and "test" not in awaited["healthcheck"]:
                yield f"{name} waits for the health of {other}, which has no check"
            elif how["condition"] == "service_completed_successfully" and awaited.get(
                "restart"
            ) not in ("no", "on-failure"):
                yield f"{name} waits for the end of {other}, which is restarted"


def variables(project: Project) -> Faults:
    """Check that variables are settings with valid values, and that all have defaults."""
    known = {name for option in options() for name in option.env}
    foreign = {"PATH", "HF_HOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    for name, service in project.own.items():
        declared = set(service["environment"]) | set(project.image_environment)
        yield from (f"{name}: {v} is not a setting" for v in declared - known - foreign)
        loaded = load(environ=project.environment(name))
        yield from loaded.warnings
        if loaded.settings.http.host != "0.0.0.0":
            yield f"{name} cannot be reached from another container"
    for variable in re.findall(r"\$\{[^}]*\}", project.text("docker-compose.yml")):
        if interpolated(variable) == variable:
            yield f"{variable} has no default"


def listeners(project: Project) -> Faults:
    """Check that Kafka listens at the addresses that it advertises."""
    environment = project.services["kafka"]["environment"]
    listens = _listeners(environment["KAFKA_LISTENERS"])
    advertised = _listeners(environment["KAFKA_ADVERTISED_LISTENERS"])
    mapped = dict(
        p.split(":") for p in environment["KAFKA_LISTENER_SECURITY_PROTOCOL_MAP"].split(",")
    )
    yield from (f"listener {name} has no protocol" for name in listens.keys() - mapped.keys())
    for name, (host, port) in advertised.items():
        if listens.get(name, ("", 0))[1] != port:
            yield f"{name} is advertised at {port} but does not listen there"
        if (
            host == "localhost"
            and f"127.0.0.1:{port}:{port}" not in project.services["kafka"]["ports"]
        ):
            yield f"{name} is advertised to this machine, but {port} is not published"
    inside = {f"{host}:{port}" for host, port in advertised.values()}
    controller = listens[environment["KAFKA_CONTROLLER_LISTENER_NAMES"]][1]
    if environment["KAFKA_CONTROLLER_QUORUM_VOTERS"] != f"1@kafka:{controller}":
        yield "the controller quorum voters do not name the controller's listener"
    for name in project.own:
        server = project.environment(name)["KAFKA_BOOTSTRAP_SERVERS"]
        if server not in inside or server.startswith("localhost"):
            yield f"{name} asks {server} for brokers"


def _listeners(declared: str) -> dict[str, tuple[str, int]]:
    listeners = re.findall(r"(\w+)://([^:,]*):(\d+)", declared)
    return {name: (host, int(port)) for name, host, port in listeners}


def health(project: Project) -> Faults:
    """Check that each health check asks its own service, at a port and path that it serves."""
    for name, answers in LISTENS.items():
        url = urlsplit(project.services[name]["healthcheck"]["test"][-1])
        if url.hostname != "127.0.0.1" or answers.get(url.port or 0) != url.path:
            yield f"{name} is checked at {url.geturl()}"
    kafka = project.services["kafka"]
    host, _, port = kafka["healthcheck"]["test"][-1].partition(":")
    ports = {p for _, p in _listeners(kafka["environment"]["KAFKA_LISTENERS"]).values()}
    if host != "localhost" or int(port) not in ports:
        yield f"kafka is checked at {host}:{port}"
    for name, service in project.services.items():
        test = service.get("healthcheck", {}).get("test", ["CMD"])
        if test[0] not in ("CMD", "CMD-SHELL"):
            yield f"{name}: a health check must start with CMD or CMD-SHELL"


def stopping(project: Project) -> Faults:
    """Check that a stopping worker has time to drain."""
    needed = load(environ=project.environment("worker")).settings.shutdown_timeout
    if seconds(project.services["worker"].get("stop_grace_period", "10s")) <= needed:
        yield f"the worker needs {needed:g} s to stop and is killed earlier"


def scaling(project: Project) -> Faults:
    """Check that `--scale worker=4` works, and that no port is open to other machines."""
    for key in ("container_name", "ports", "hostname"):
        if key in project.services["worker"]:
            yield f"the worker has {key}: only one could start"
    for name, service in project.services.items():
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"{name} publishes {port} to every machine"


def commands(project: Project) -> Faults:
    """Check that the command line accepts each command, and that each build context exists."""
    default = json.loads(project.instruction("CMD"))
    for name, service in project.own.items():
        errors = io.StringIO()
        try:
            with redirect_stderr(errors):
                command = service.get("command", default)
                _parser(command).parse_args(command)
        except SystemExit:
            yield f"{name}: {errors.getvalue().splitlines()[-1]}"
        context = project.root / service["build"]["context"]
        if not (context / service["build"].get("dockerfile", "Dockerfile")).exists():
            yield f"{name} has nothing to build from"


def monitoring(project: Project) -> Faults:
    """Check that Prometheus finds the workers, and Grafana finds Prometheus and the board."""
    port = load(environ=project.environment("worker")).settings.http.port
    scraped = yaml.safe_load(project.text(SCRAPING))["scrape_configs"][0]["dns_sd_configs"][0]
    if scraped["names"] != ["worker"] or scraped["port"] != port or scraped["type"] != "A":
        yield f"Prometheus looks for workers at {scraped['names']}, port {scraped['port']}"
    folder = _mounted(project, "prometheus")["/etc/prometheus"]
    command = project.services["prometheus"]["command"]
    config = next(x for x in command if x.startswith("--config.file=")).partition("=")[2]
    for name in [Path(config).name, *yaml.safe_load(project.text(SCRAPING))["rule_files"]]:
        if not (project.root / folder / name).is_file():
            yield f"Prometheus reads {name}, which is not mounted"
    source = yaml.safe_load(project.text(f"{PROVISIONING}/datasources/prometheus.yml"))
    url = urlsplit(source["datasources"][0]["url"])
    if url.port not in LISTENS.get(str(url.hostname), {}):
        yield f"Grafana asks {url.geturl()}"
    provider = yaml.safe_load(project.text(f"{PROVISIONING}/dashboards/streamlabel.yml"))
    mounted = _mounted(project, "grafana")
    boards = provider["providers"][0]["options"]["path"]
    home = Path(project.environment("grafana")["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"])
    if boards not in mounted:
        yield f"Grafana reads boards from {boards}, which is not mounted"
    elif not (project.root / mounted[boards] / home.relative_to(boards)).exists():
        yield f"Grafana's home {home} does not exist"


def _mounted(project: Project, service: str) -> dict[str, str]:
    """Return the source of each mounted path of the container."""
    return {t: s for s, t, *_ in (v.split(":") for v in project.services[service]["volumes"])}


CHECKS: list[Callable[[Project], Faults]] = [
    mounts, dependencies, variables, listeners, health, stopping, scaling, commands, monitoring,
]  # fmt: skip

SABOTAGE = [
    (mounts, "docker-compose.yml", "./deploy/grafana/dashboards:", "./deploy/boards:"),
    (mounts, "docker-compose.yml", "kafka:/var/lib/kafka/data", "kafak:/var/lib/kafka/data"),
    (dependencies, "docker-compose.yml", "topics: {condition", "topic: {condition"),
    (dependencies, "docker-compose.yml", "prometheus: {condition: service_healthy}", "prometheus: {condition: healthy}"),
    (dependencies, "docker-compose.yml", "topics: {condition: service_completed_successfully}", "topics: {condition: service_healthy}"),
    (dependencies, "docker-compose.yml", "restart: on-failure", "restart: always"),
    (variables, "docker-compose.yml", "STREAMLABEL_DELIVERY", "STREAMLABEL_DELIVRY"),
    (variables, "docker-compose.yml", ":-bundled}", "}"),
    (variables, "Dockerfile", "HTTP_HOST=0.0.0.0", "HTTP_HOST=127.0.0.1"),
    (variables, "Dockerfile", "STREAMLABEL_HTTP_PORT=", "STREAMLABEL_PORT="),
    (listeners, "docker-compose.yml", "PLAINTEXT://kafka:9092", "PLAINTEXT://kafka:9094"),
    (listeners, "docker-compose.yml", "BOOTSTRAP_SERVERS: kafka:9092", "BOOTSTRAP_SERVERS: localhost:29092"),
    (listeners, "docker-compose.yml", "127.0.0.1:29092:29092", "127.0.0.1:9092:9092"),
    (listeners, "docker-compose.yml", "1@kafka:9093", "1@kafka:9095"),
    (listeners, "docker-compose.yml", ",CONTROLLER:PLAINTEXT", ""),
    (health, "docker-compose.yml", "9090/-/healthy", "9091/-/healthy"),
    (health, "docker-compose.yml", "/api/health", "/health"),
    (health, "docker-compose.yml", '"localhost:9092"', '"localhost:9999"'),
    (health, "docker-compose.yml", "test: [CMD, wget", "test: [wget"),
    (stopping, "docker-compose.yml", "stop_grace_period: 45s", "stop_grace_period: 30s"),
    (scaling, "docker-compose.yml", 'expose: ["9100"]', 'ports: ["127.0.0.1:9100:9100"]'),
    (scaling, "docker-compose.yml", "127.0.0.1:3000:3000", "3000:3000"),
    (commands, "docker-compose.yml", "command: [topics, create]", "command: [topic, create]"),
    (commands, "docker-compose.yml", "context: .", "context: ./worker"),
    (monitoring, SCRAPING, "names: [worker]", "names: [workers]"),
    (monitoring, SCRAPING, "port: 9100", "port: 9101"),
    (monitoring, SCRAPING, "rule_files: [alerts.yml]", "rule_files: [rules.yml]"),
    (monitoring, "docker-compose.yml", "/etc/prometheus/prometheus.yml", "/etc/prometheus/config.yml"),
    (monitoring, f"{PROVISIONING}/datasources/prometheus.yml", "prometheus:9090", "prometheus:9091"),
    (monitoring, f"{PROVISIONING}/dashboards/streamlabel.yml", "/etc/grafana/dashboards", "/boards"),
    (monitoring, "docker-compose.yml", "dashboards/streamlabel.json", "dashboards/home.json"),
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_deployment_has_no_fault(check: Callable[[Project], Faults]) -> None:
    """Every check passes on the project itself."""
    assert list(check(Project(ROOT))) == []


@pytest.mark.parametrize(("check", "path", "old", "new"), SABOTAGE)
def test_each_check_finds_a_planted_fault(
    check: Callable[[Project], Faults], path: str, old: str, new: str, tmp_path: Path
) -> None:
    """A copy with one change has at least one more fault."""
    faults = set(check(Project(ROOT)))
    for name in ("docker-compose.yml", "Dockerfile"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    text = Project(tmp_path).text(path)
    assert old in text
    (tmp_path / path).write_text(text.replace(old, new))
    assert set(check(Project(tmp_path))) - faults


def test_the_file_follows_the_compose_specification() -> None:
    """It is valid by the specification's own JSON Schema, as check-jsonschema ships it."""
    package = pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    vendored = Path(str(package.__file__)).parent / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    checker = jsonschema.validators.validator_for(schema)(schema)
    project = Project(ROOT)
    checker.validate(project.compose)
    project.services["worker"]["stop_grace"] = "45s"
    assert not checker.is_valid(project.compose)


def test_docker_compose_accepts_the_file() -> None:
    """`docker compose config` needs the plugin, but no engine."""
    docker = shutil.which("docker") or "docker"
    version = shutil.which("docker") and subprocess.run(
        [docker, "compose", "version"], check=False, capture_output=True
    )
    if not version or version.returncode:
        pytest.skip("docker compose is not installed")
    command = [docker, "compose", "--file", str(ROOT / "docker-compose.yml"), "config", "--quiet"]
    subprocess.run(command, check=True)
