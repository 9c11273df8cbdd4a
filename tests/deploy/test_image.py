"""The Dockerfile copies files that exist, and the image runs the worker as documented.

As in test_compose.py, each check is a function that returns the faults of a project, and a copy
with a planted fault shows that the check finds it.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.deploy.project import ROOT, Project
from worker.clock import SystemClock
from worker.http.server import HttpServer
from worker.metrics import Metrics
from worker.runtime.progress import Progress
from worker.settings import HttpSettings, load

PINS = "deploy/constraints.txt"

Faults = Iterator[str]


def sources(project: Project) -> Faults:
    """Check that copied files exist and are not ignored, and that stages copy from stages."""
    ignored = project.text(".dockerignore").splitlines()
    stages = [args.split()[-1] for name, args in project.dockerfile if name == "FROM"]
    for name, args in project.dockerfile:
        flags = [word for word in args.split() if word.startswith("--from=")]
        if name != "COPY":
            continue
        if flags and flags[0].removeprefix("--from=") not in stages:
            yield f"{flags[0]} is not a stage"
        for source in [] if flags else args.split()[:-1]:
            if not (project.root / source).exists():
                yield f"{source} is copied but does not exist"
            if f"!{source}" not in ignored:
                yield f"{source} is copied but excluded by .dockerignore"


def program(project: Project) -> Faults:
    """Check that the image runs the installed command, not as root, and stops on SIGTERM."""
    pyproject = tomllib.loads(project.text("pyproject.toml"))["project"]
    if json.loads(project.instruction("ENTRYPOINT"))[0] not in pyproject["scripts"]:
        yield "the entry point is not a script of the project"
    if project.instruction("USER") in ("root", "0"):
        yield "the image runs as root"
    users = [args for name, args in project.final_stage if name == "RUN" and "useradd" in args]
    if not any(f"--uid {project.instruction('USER')} " in args for args in users):
        yield "the image does not create its user"
    if project.instruction("STOPSIGNAL") != "SIGTERM":
        yield "the worker drains on SIGTERM"
    needed = {pyproject["readme"], *pyproject["license-files"], "pyproject.toml"}
    needed = {name.partition("/")[0] for name in needed}  # a folder is copied whole
    copied = " ".join(args for name, args in project.dockerfile if name == "COPY").split()
    yield from (f"{name} is needed to build the project" for name in needed - set(copied))


def storage(project: Project) -> Faults:
    """Check that everything is written to the volume."""
    volume = project.instruction("VOLUME")
    environment = project.image_environment
    for name in ("HF_HOME", "STREAMLABEL_MODEL_CACHE_DIR"):
        if not environment.get(name, "").startswith(f"{volume}/"):
            yield f"{name} is outside {volume}"


def health(project: Project) -> Faults:
    """Check that the health check asks the worker's port, at a path that it serves."""
    port = load(environ=project.image_environment).settings.http.port
    if project.instruction("EXPOSE") != str(port):
        yield f"the worker listens on {port}, but the image exposes another port"
    match = re.search(
        r'"http://127\.0\.0\.1:\$\{(\w+)\}(/\w+)"', project.instruction("HEALTHCHECK")
    )
    if not match or project.image_environment.get(match[1]) != str(port):
        yield "the health check does not ask the worker's port"
    elif match[2] not in ("/livez", "/readyz"):
        yield f"the worker does not serve {match[2]}"


def pins(project: Project) -> Faults:
    """Check that every dependency is pinned to a public version."""
    lines = project.text(PINS).splitlines()
    entries = [Requirement(line) for line in lines if line.strip() and not line.startswith("#")]
    for entry in entries:
        operators = [s.operator for s in entry.specifier]
        if operators != ["=="] or "+" in str(entry.specifier) or entry.url:
            yield f"{entry} is not pinned to a public version"
    pinned = {canonicalize_name(entry.name): entry for entry in entries}
    declared = tomllib.loads(project.text("pyproject.toml"))["project"]
    for requirement in map(Requirement, declared["dependencies"]):
        pin = pinned.get(canonicalize_name(requirement.name))
        version = next(iter(pin.specifier)).version if pin else None
        if version is None or version not in requirement.specifier:
            yield f"{requirement} is not in {PINS}"


CHECKS: list[Callable[[Project], Faults]] = [sources, program, storage, health, pins]

SABOTAGE = [
    (sources, "Dockerfile", "COPY schemas ./schemas", "COPY schema ./schemas"),
    (sources, "Dockerfile", "--from=build", "--from=builder"),
    (sources, ".dockerignore", "!worker", "!workers"),
    (program, "Dockerfile", 'ENTRYPOINT ["streamlabel"]', 'ENTRYPOINT ["stream-label"]'),
    (program, "Dockerfile", "USER 10001", "USER root"),
    (program, "Dockerfile", "--uid 10001", "--uid 10002"),
    (program, "Dockerfile", " LICENSE ./", " ./"),
    (program, "Dockerfile", "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
    (storage, "Dockerfile", "HF_HOME=/var/lib/streamlabel/hub", "HF_HOME=/opt/hub"),
    (health, "Dockerfile", "EXPOSE 9100", "EXPOSE 9101"),
    (health, "Dockerfile", "}/livez", "}/healthz"),
    (health, "Dockerfile", "${STREAMLABEL_HTTP_PORT}", "8080"),
    (pins, PINS, "torch==", "torch>="),
    (pins, PINS, "\npydantic==", "\npydantic-two=="),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_image_has_no_fault(check: Callable[[Project], Faults]) -> None:
    """Every check passes on the project itself."""
    assert list(check(Project(ROOT))) == []


@pytest.mark.parametrize(("check", "path", "old", "new"), SABOTAGE)
def test_each_check_finds_a_planted_fault(
    check: Callable[[Project], Faults], path: str, old: str, new: str, tmp_path: Path
) -> None:
    """A copy with one change has at least one more fault."""
    faults = set(check(Project(ROOT)))
    for name in ("Dockerfile", ".dockerignore", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("deploy", "schemas", "worker"):
        (tmp_path / name).mkdir()
    shutil.copy(ROOT / PINS, tmp_path / PINS)
    text = Project(tmp_path).text(path)
    assert old in text
    (tmp_path / path).write_text(text.replace(old, new))
    assert set(check(Project(tmp_path))) - faults


def test_the_health_check_program_works() -> None:
    """Run the code of the HEALTHCHECK against the worker's own server."""
    code = re.search(r'python -c "([^"]+)"', Project(ROOT).instruction("HEALTHCHECK"))
    assert code
    metrics = Metrics()
    server = HttpServer(HttpSettings(port=0), metrics, Progress(60.0, metrics, SystemClock()))
    try:
        assert _exit_code(code[1], f"http://127.0.0.1:{server.port}/livez") == 0
        assert _exit_code(code[1], f"http://127.0.0.1:{server.port}/readyz") == 1
    finally:
        server.close()
    assert _exit_code(code[1], f"http://127.0.0.1:{server.port}/livez") == 1


def _exit_code(code: str, url: str) -> int:
    return subprocess.run(
        [sys.executable, "-c", code, url], check=False, capture_output=True, timeout=30
    ).returncode
