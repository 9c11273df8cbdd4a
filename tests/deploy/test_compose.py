"""Every path, port, variable and command in the Compose files exists, and each limit is set.

The tests need no container engine: each check is a function that returns the faults of a project.
The project itself has none, and a copy with a planted fault shows that the check finds it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import jsonschema
import pytest
import yaml

from tests.deploy.project import PROVISIONING, ROOT, SCRAPING, Project, interpolated, seconds
from worker.demo.broker import EmbeddedBroker
from worker.settings import child_environment, options

# Ports and health paths of third-party images, from their documentation.
LISTENS = {"prometheus": {9090: "/-/ready"}, "grafana": {3000: "/api/health"}}
CONDITIONS = {"service_started", "service_healthy"}
FILES = ("docker-compose.yml", "docker-compose.gpu.yml", "docker-compose.ca.yml")
PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"}
HUB = {"HF_TOKEN", "HF_ENDPOINT"}  # read by the hub's client

Faults = Iterator[str]
Start = Callable[..., subprocess.CompletedProcess[str]]


def mounts(project: Project) -> Faults:
    """Check that mounted paths exist, and that volumes and the like are declared and used."""
    used: dict[str, set[str]] = {kind: set() for kind in ("volumes", "configs", "secrets")}
    for name, service in project.services.items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith("."):
                used["volumes"].add(source)
            elif not (project.root / source).exists():
                yield f"{name} mounts {source}, which does not exist"
        used["configs"].update(config["source"] for config in service.get("configs", []))
        used["secrets"].update(service.get("secrets", []))
        used["secrets"].update(service.get("build", {}).get("secrets", []))
    for kind, names in used.items():
        declared = project.compose[kind]
        yield from (f"{kind}: {name} is not declared" for name in names - declared.keys())
        yield from (f"{kind}: {name} is not used" for name in declared.keys() - names)
        for name, source in declared.items() if kind != "volumes" else []:
            if not (project.root / source["file"]).exists():
                yield f"{kind}: the file of {name} does not exist"


def images(project: Project) -> Faults:
    """Check that each image can be replaced, and is pinned by its digest or built here."""
    for line in re.findall(r"^ +image: (.*)$", project.text("docker-compose.yml"), re.MULTILINE):
        named = re.fullmatch(r"\$\{\w+_IMAGE:-(.+)\}", line)
        if not named:
            yield f"no variable replaces {line}"
        elif not re.fullmatch(r"[\w./-]+:[\w.-]+@sha256:[0-9a-f]{64}|streamlabel:local", named[1]):
            yield f"{named[1]} is not pinned"


def building(project: Project) -> Faults:
    """Check that the Dockerfile takes each argument and secret, and that CPUs are the default."""
    instructions = project.dockerfile
    taken = {args.partition("=")[0] for name, args in instructions if name == "ARG"}
    secrets = re.findall(r"type=secret,id=([\w.]+)", " ".join(args for _, args in instructions))
    gpu = yaml.safe_load(project.text("docker-compose.gpu.yml"))["services"]["worker"]
    for build in (project.services["worker"]["build"], gpu["build"]):
        given = build["args"].keys() - PROXIES  # Docker knows them without an ARG
        yield from (f"the Dockerfile takes no argument {name}" for name in given - taken)
    build = project.services["worker"]["build"]
    yield from (f"the build reads no secret {s}" for s in set(build["secrets"]) - set(secrets))
    default = next(args for name, args in instructions if args.startswith("TORCH="))
    chosen = build["args"]["TORCH"] or default.partition("=")[2]
    if (chosen, gpu["build"]["args"]["TORCH"]) != ("cpu", "cuda"):
        yield f"torch for {chosen}, and with a GPU for {gpu['build']['args']['TORCH']}"
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    if device["capabilities"] != ["gpu"]:
        yield "docker-compose.gpu.yml reserves no GPU"


def dependencies(project: Project) -> Faults:
    """Check that each service waits for a condition that can come true."""
    for name, service in project.services.items():
        for other, how in service.get("depends_on", {}).items():
            awaited = project.services.get(other)
            if awaited is None:
                yield f"{name} waits for {other}, which is not a service"
            elif how["condition"] not in CONDITIONS:
                yield f"{name} waits for {other} to be {how['condition']}"


def variables(project: Project) -> Faults:
    """Check that variables are settings with valid values, and that all have defaults."""
    known = {name for option in options() for name in option.env} | {"STREAMLABEL_CONFIG"}
    passed = set(project.services["worker"]["environment"])
    yield from (f"{v} is not a setting" for v in passed - known - PROXIES - HUB)
    yield from (f"the worker gets no {v}" for v in (PROXIES | HUB) - passed)
    loaded = project.settings("worker")
    yield from loaded.warnings
    if loaded.settings.http.host != "0.0.0.0":
        yield "the worker cannot be reached from another container"
    if not loaded.settings.create_topics:
        yield "the topics are missing on a new broker"
    for file in FILES:
        for variable in re.findall(r"\$\{[^}]*\}", project.text(file)):
            if interpolated(variable) == variable and ":?" not in variable:
                yield f"{variable} has neither a default nor an error without a value"


def passwords(project: Project) -> Faults:
    """Check that no file has a password, and that Grafana is started with one of its own."""
    for name, service in project.services.items():
        secret = re.compile("PASSWORD|TOKEN|SECRET")
        for variable, value in service.get("environment", {}).items():
            if secret.search(variable) and value is not None:
                yield f"{name}: {variable} has a value"
    grafana = project.services["grafana"]
    script = _mounted(project, "grafana").get(grafana.get("entrypoint", [""])[-1])
    text = project.text(script) if script else ""
    if not all(f"/run/secrets/{name}" in text for name in grafana["secrets"]):
        yield "Grafana starts with its default password"


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
    server = project.settings("worker").settings.kafka.bootstrap_servers
    if server not in inside or server.startswith("localhost"):
        yield f"the worker asks {server} for brokers"


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
    asked = re.search(r"/dev/tcp/127\.0\.0\.1/(\d+) ", kafka["healthcheck"]["test"][-1])
    ports = {port for _, port in _listeners(kafka["environment"]["KAFKA_LISTENERS"]).values()}
    if not asked or int(asked[1]) not in ports:
        yield "kafka is checked at a port where it does not listen"
    program, path = project.services["worker"]["healthcheck"]["test"][1:]
    copied = [args for name, args in project.final_stage if name == "COPY"]
    if not any(f"/{program} " in args for args in copied):
        yield f"the image has no program {program}"
    if path != "/readyz":  # /livez is green before the worker takes records
        yield f"`up --wait` waits for {path}"
    for name, service in project.services.items():
        check = service["healthcheck"]
        if check["test"][0] not in ("CMD", "CMD-SHELL"):
            yield f"{name}: a health check must start with CMD or CMD-SHELL"
        if seconds(check["start_interval"]) > 1 or seconds(check["interval"]) < 10:
            yield f"{name} is checked too seldom at its start, or too often afterwards"


def stopping(project: Project) -> Faults:
    """Check that a stopping worker has time to drain, and that what ended is started again."""
    needed = project.settings("worker").settings.shutdown_timeout
    if seconds(project.services["worker"].get("stop_grace_period", "10s")) <= needed:
        yield f"the worker needs {needed:g} s to stop and is killed earlier"
    for name, service in project.services.items():
        if service.get("restart") != "unless-stopped":
            yield f"{name} stays away after it ended"


def limits(project: Project) -> Faults:
    """Check that memory is bounded, the worker's cores too, and the size of every log."""
    for name, service in project.services.items():
        bounds = service.get("deploy", {}).get("resources", {}).get("limits", {})
        if "memory" not in bounds:
            yield f"{name} may take all memory"
        if service.get("logging", {}).get("driver") != "local":
            yield f"the log of {name} grows without a bound"
    if "cpus" not in project.services["worker"]["deploy"]["resources"]["limits"]:
        yield "workers share all cores, and each has a thread for every core"


def scaling(project: Project) -> Faults:
    """Check that `--scale worker=6` works, and that no port is open to other machines."""
    worker = project.services["worker"]
    yield from (
        f"the worker has {key}: only one could start"
        for key in ("container_name", "hostname")
        if key in worker
    )
    (published,) = worker["ports"]
    first, _, last = published.split(":")[1].partition("-")
    if int(last or first) - int(first) + 1 < 6:  # the topic's partitions
        yield f"{published} has too few ports for six workers"
    if int(published.split(":")[-1]) != project.settings("worker").settings.http.port:
        yield f"{published} does not lead to the live page"
    for name, service in project.services.items():
        for port in service.get("ports", []):
            if not port.startswith("127.0.0.1:"):
                yield f"{name} publishes {port} to every machine"


def overrides(project: Project) -> Faults:
    """Check that the override files change services, secrets and volumes that exist."""
    for file in FILES[1:]:
        document = yaml.safe_load(project.text(file))
        for name, service in document["services"].items():
            if name not in project.services:
                yield f"{file} changes {name}, which is not a service"
            for secret in service.get("secrets", []):
                read = service["environment"].values()
                if secret not in project.compose["secrets"] or f"/run/secrets/{secret}" not in read:
                    yield f"{file}: {secret} is not declared or not read"


def monitoring(project: Project) -> Faults:
    """Check that Prometheus finds the workers, and Grafana finds Prometheus and the board."""
    port = project.settings("worker").settings.http.port
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
    mounts, images, building, dependencies, variables, passwords, listeners, health, stopping,
    limits, scaling, overrides, monitoring,
]  # fmt: skip

SETTINGS = "deploy/compose/streamlabel.toml"
SABOTAGE = [
    (mounts, "docker-compose.yml", "./deploy/grafana/dashboards:", "./deploy/boards:"),
    (mounts, "docker-compose.yml", "kafka:/var/lib/kafka/data", "kafak:/var/lib/kafka/data"),
    (mounts, "docker-compose.yml", "secrets: [pip.conf, ca.pem]", "secrets: [pip.conf]"),
    (mounts, "docker-compose.yml", "./deploy/compose/", "./deploy/"),
    (images, "docker-compose.yml", "${KAFKA_IMAGE:-apache/kafka:4.3.1", "apache/kafka:4.3.1"),
    (images, "docker-compose.yml", "prom/prometheus:v3.12.0@sha256:69f5", "prom/prometheus:v3.12.0@sha256:"),
    (building, "docker-compose.yml", "EXTRAS:", "EXTRA:"),
    (building, "docker-compose.yml", "secrets: [pip.conf, ca.pem]", "secrets: [pip.ini, ca.pem]"),
    (building, "Dockerfile", "ARG TORCH=cpu", "ARG TORCH=cuda"),
    (building, "docker-compose.gpu.yml", "TORCH: cuda", "TORCH: cpu"),
    (building, "docker-compose.gpu.yml", "[gpu]", "[cpu]"),
    (dependencies, "docker-compose.yml", "kafka: {condition", "broker: {condition"),
    (dependencies, "docker-compose.yml", "prometheus: {condition: service_healthy}", "prometheus: {condition: healthy}"),
    (variables, "docker-compose.yml", "STREAMLABEL_DELIVERY", "STREAMLABEL_DELIVRY"),
    (variables, "docker-compose.yml", "      HF_TOKEN:\n", ""),
    (variables, "docker-compose.yml", "      <<: *proxies\n      STREAMLABEL_CONFIG", "      STREAMLABEL_CONFIG"),
    (variables, "docker-compose.yml", "KAFKA_MEMORY:-2g}", "KAFKA_MEMORY}"),
    (variables, SETTINGS, "create_topics = true", "create_topics = false"),
    (variables, "Dockerfile", "HTTP_HOST=0.0.0.0", "HTTP_HOST=127.0.0.1"),
    (passwords, "docker-compose.yml", "entrypoint: [/bin/sh, /etc/grafana/start.sh]", "user: grafana"),
    (passwords, "docker-compose.yml", "      HF_TOKEN:\n", "      HF_TOKEN: hf_x\n"),
    (listeners, "docker-compose.yml", "PLAINTEXT://kafka:9092", "PLAINTEXT://kafka:9094"),
    (listeners, SETTINGS, '"kafka:9092"', '"localhost:29092"'),
    (listeners, "docker-compose.yml", "${KAFKA_PORT:-29092}:${KAFKA_PORT:-29092}", "9092:9092"),
    (listeners, "docker-compose.yml", "1@kafka:9093", "1@kafka:9095"),
    (listeners, "docker-compose.yml", ",CONTROLLER:PLAINTEXT", ""),
    (health, "docker-compose.yml", "9090/-/ready", "9091/-/ready"),
    (health, "docker-compose.yml", "/api/health", "/health"),
    (health, "docker-compose.yml", "/127.0.0.1/9092", "/127.0.0.1/9999"),
    (health, "docker-compose.yml", "test: [CMD, wget", "test: [wget"),
    (health, "docker-compose.yml", "[CMD, healthy, /readyz]", "[CMD, health, /readyz]"),
    (health, "docker-compose.yml", "[CMD, healthy, /readyz]", "[CMD, healthy, /livez]"),
    (health, "docker-compose.yml", "interval: 15s", "interval: 1s"),
    (stopping, "docker-compose.yml", "stop_grace_period: 45s", "stop_grace_period: 30s"),
    (stopping, "docker-compose.yml", "restart: unless-stopped", "restart: on-failure"),
    (limits, "docker-compose.yml", 'memory: "${GRAFANA_MEMORY', 'pids: "${GRAFANA_MEMORY'),
    (limits, "docker-compose.yml", 'cpus: "${WORKER_CPUS:-1}", ', ""),
    (limits, "docker-compose.yml", "driver: local", "driver: json-file"),
    (scaling, "docker-compose.yml", "${WORKER_PORTS:-9100-9109}", "9100"),
    (scaling, "docker-compose.yml", "9109}:9100", "9109}:9101"),
    (scaling, "docker-compose.yml", "127.0.0.1:${GRAFANA_PORT:-3000}", "${GRAFANA_PORT:-3000}"),
    (variables, "docker-compose.ca.yml", "${CA_FILE:?name the PEM file with the authorities}", "${CA_FILE}"),
    (overrides, "docker-compose.gpu.yml", "  worker:", "  workers:"),
    (overrides, "docker-compose.ca.yml", "secrets: [ca.pem]", "secrets: [ca.crt]"),
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
    for name in (*FILES, "Dockerfile"):
        shutil.copy(ROOT / name, tmp_path / name)
    shutil.copytree(ROOT / "deploy", tmp_path / "deploy")
    text = Project(tmp_path).text(path)
    assert old in text
    (tmp_path / path).write_text(text.replace(old, new))
    assert set(check(Project(tmp_path))) - faults


def test_the_files_follow_the_compose_specification() -> None:
    """They are valid by the specification's own JSON Schema, as check-jsonschema ships it."""
    package = pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    vendored = Path(str(package.__file__)).parent / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    checker = jsonschema.validators.validator_for(schema)(schema)
    for file in FILES:
        document = yaml.safe_load(Project(ROOT).text(file))
        checker.validate(document)
        document["services"]["worker"]["stop_grace"] = "45s"
        assert not checker.is_valid(document)


@pytest.mark.parametrize("override", [(), FILES[1:2], FILES[2:]])
def test_docker_compose_accepts_the_files(override: tuple[str, ...]) -> None:
    """`docker compose config` needs the plugin, but no engine."""
    docker = shutil.which("docker") or "docker"
    version = shutil.which("docker") and subprocess.run(
        [docker, "compose", "version"], check=False, capture_output=True
    )
    if not version or version.returncode:
        pytest.skip("docker compose is not installed")
    files = [part for name in (FILES[0], *override) for part in ("--file", str(ROOT / name))]
    subprocess.run([docker, "compose", *files, "config", "--quiet"], check=True)


def _kafka_is_healthy(port: int) -> bool:
    """Run the health check of Kafka against a port of this machine."""
    test = Project(ROOT).services["kafka"]["healthcheck"]["test"][1:]
    command = [part.replace("/9092 ", f"/{port} ").replace("-t 4", "-t 1") for part in test]
    return subprocess.run(command, check=False, capture_output=True, timeout=30).returncode == 0


def test_the_health_check_of_kafka_wants_an_answer() -> None:
    """A broker passes; a port that is closed, silent or closes the connection does not."""
    with EmbeddedBroker() as broker:
        assert _kafka_is_healthy(int(broker.bootstrap_servers.rpartition(":")[2]))
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not _kafka_is_healthy(silent.getsockname()[1])
        port = silent.getsockname()[1]
    assert not _kafka_is_healthy(port)


@pytest.fixture
def grafana(tmp_path: Path) -> Start:
    """Return a function that runs Grafana's start, with a program in its place that prints."""
    (tmp_path / "data").mkdir()
    (tmp_path / "secrets").mkdir()
    run = tmp_path / "run.sh"
    run.write_text(
        '#!/bin/sh\ncat "${GF_SECURITY_ADMIN_PASSWORD__FILE:-/dev/null}"\n', encoding="utf-8"
    )
    run.chmod(0o755)
    script = (ROOT / "deploy/grafana/start.sh").read_text(encoding="utf-8")
    script = script.replace("/run/secrets", str(tmp_path / "secrets")).replace("/run.sh", str(run))

    def start(*before: str) -> subprocess.CompletedProcess[str]:
        environ = child_environment(GF_PATHS_DATA=str(tmp_path / "data"))
        return subprocess.run(
            [*before, "sh", "-c", script], env=environ, check=False, capture_output=True, text=True
        )

    return start


def test_grafana_gets_a_password_that_is_made_once(grafana: Start, tmp_path: Path) -> None:
    """It is long, only its owner can read it, and a restart keeps it."""
    first, again = grafana().stdout, grafana().stdout
    assert len(first.strip()) == 24
    assert first == again
    assert (tmp_path / "data/admin-password").stat().st_mode & 0o077 == 0


def test_grafana_takes_the_password_that_is_given(grafana: Start, tmp_path: Path) -> None:
    """An empty file, which /dev/null is, counts as none."""
    given = tmp_path / "secrets/grafana_admin_password"
    given.touch()
    assert len(grafana().stdout.strip()) == 24
    given.write_text("mine", encoding="utf-8")
    assert grafana().stdout == "mine"


def test_grafana_keeps_the_password_of_its_data(grafana: Start, tmp_path: Path) -> None:
    """A new password would not be that of the database, in which the old one stays."""
    (tmp_path / "data/grafana.db").touch()
    done = grafana()
    assert (done.returncode, done.stdout) == (0, "")
    assert "grafana cli admin reset-admin-password" in done.stderr
    assert not (tmp_path / "data/admin-password").exists()


def test_grafana_does_not_start_with_a_password_that_it_can_not_read(
    grafana: Start, tmp_path: Path
) -> None:
    """Root can read every file as long as it has the capabilities of root."""
    given = tmp_path / "secrets/grafana_admin_password"
    given.write_text("mine", encoding="utf-8")
    given.chmod(0)
    plain = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
    done = grafana(*plain if os.geteuid() == 0 else ())
    assert (done.returncode, done.stdout) == (1, "")
    assert "can't be read by user" in done.stderr
