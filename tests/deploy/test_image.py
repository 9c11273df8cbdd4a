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
from worker.settings import HttpSettings, child_environment, load

Install = Callable[[str], subprocess.CompletedProcess[str]]

PINS = "deploy/constraints.txt"
# Modules that the stage `model` copies beside the folder of the model.
MODEL_CODE = [
    word
    for name, args in Project(ROOT).dockerfile
    if name == "COPY" and "--from=" not in args
    for word in args.split()[:-1]
    if word.startswith("worker/") and word.endswith(".py")
]

Faults = Iterator[str]


def sources(project: Project) -> Faults:
    """Check that copied files exist and are not ignored, and that stages copy from stages."""
    sent = [line[1:] for line in project.text(".dockerignore").splitlines() if line[:1] == "!"]
    stages = [args.split()[-1] for name, args in project.dockerfile if name == "FROM"]
    for name, args in project.dockerfile:
        for stage in re.findall(r"\bfrom=(\w+)", args):
            if stage not in stages:
                yield f"{stage} is not a stage"
        if name != "COPY" or "--from=" in args:
            continue
        for source in args.split()[:-1]:
            if not (project.root / source).exists():
                yield f"{source} is copied but does not exist"
            if not any(source == path or source.startswith(f"{path}/") for path in sent):
                yield f"{source} is copied but excluded by .dockerignore"


def reinstalls(project: Project) -> Faults:
    """Check that nothing is sent to the engine that only tests need."""
    if "deploy/constraints-dev.txt" in project.text("Dockerfile") + project.text(".dockerignore"):
        yield "a new linter would install torch again"


def base(project: Project) -> Faults:
    """Check that every stage begins with the base image, by its digest, or with another stage."""
    image = project.argument("PYTHON_IMAGE")
    if not re.fullmatch(r"python:3\.11-slim-bookworm@sha256:[0-9a-f]{64}", image):
        yield f"{image} has no digest"
    stages = ["${PYTHON_IMAGE}"]
    for args in (args for name, args in project.dockerfile if name == "FROM"):
        if args.split()[0] not in stages:
            yield f"{args} begins with another image"
        stages.append(args.split()[-1])


def labels(project: Project) -> Faults:
    """Check that the labels say what pyproject.toml says."""
    declared = tomllib.loads(project.text("pyproject.toml"))["project"]
    expected = {
        "title": declared["name"],
        "description": declared["description"],
        "licenses": declared["license"],
        "source": declared["urls"]["Repository"],
        "documentation": declared["urls"]["Documentation"],
        **{name: f"${name.upper()}" for name in ("version", "revision", "created")},
    }
    said = dict(
        re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', project.text("Dockerfile"))
    )
    yield from (
        f"the label {name} is not {value}" for name, value in expected.items() - said.items()
    )


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
    needed = {"README.md", "setup.py", *pyproject["license-files"], "pyproject.toml"}
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
    program, path = json.loads(project.instruction("HEALTHCHECK").partition("CMD ")[2])
    asked = re.search(r"/dev/tcp/127\.0\.0\.1/\$(\w+)", project.text(f"deploy/image/{program}"))
    if not asked or project.image_environment.get(asked[1]) != str(port):
        yield "the health check does not ask the worker's port"
    if path not in ("/livez", "/readyz"):
        yield f"the worker does not serve {path}"


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
    extras = project.argument("EXTRAS").split(",")
    wanted = [line for extra in extras for line in declared["optional-dependencies"][extra]]
    for requirement in map(Requirement, [*declared["dependencies"], *wanted]):
        pin = pinned.get(canonicalize_name(requirement.name))
        version = next(iter(pin.specifier)).version if pin else None
        if version is None or version not in requirement.specifier:
            yield f"{requirement} is not in {PINS}"


CHECKS: list[Callable[[Project], Faults]] = [
    *(sources, reinstalls, base, labels, program, storage, health, pins),
]

SABOTAGE = [
    (sources, "Dockerfile", "COPY schemas ./schemas", "COPY schema ./schemas"),
    (sources, "Dockerfile", "--from=model", "--from=models"),
    (sources, "Dockerfile", "type=bind,from=wheel", "type=bind,from=wheels"),
    (sources, ".dockerignore", "!worker", "!workers"),
    (sources, ".dockerignore", "!deploy/image", "!deploy/images"),
    (reinstalls, "Dockerfile", "deploy/constraints.txt", "deploy/constraints-dev.txt"),
    (reinstalls, ".dockerignore", "!NOTICE", "!NOTICE\n!deploy/constraints-dev.txt"),
    (base, "Dockerfile", "slim-bookworm@sha256:", "slim-bookworm#sha256:"),
    (base, "Dockerfile", "FROM packages AS model", "FROM debian:bookworm AS model"),
    (labels, "Dockerfile", 'image.licenses="Apache-2.0"', 'image.licenses="MIT"'),
    (labels, "Dockerfile", "$REVISION", "$VERSION"),
    (labels, "pyproject.toml", 'description = "A Kafka', 'description = "Some Kafka'),
    (program, "Dockerfile", 'ENTRYPOINT ["streamlabel"]', 'ENTRYPOINT ["stream-label"]'),
    (program, "Dockerfile", "USER 10001", "USER root"),
    (program, "Dockerfile", "--uid 10001", "--uid 10002"),
    (program, "Dockerfile", " LICENSE NOTICE ./", " NOTICE ./"),
    (program, "Dockerfile", "STOPSIGNAL SIGTERM", "STOPSIGNAL SIGKILL"),
    (storage, "Dockerfile", "HF_HOME=/var/lib/streamlabel/hub", "HF_HOME=/opt/hub"),
    (health, "Dockerfile", "EXPOSE 9100", "EXPOSE 9101"),
    (health, "Dockerfile", '"/livez"', '"/healthz"'),
    (health, "deploy/image/healthy", "$STREAMLABEL_HTTP_PORT", "8080"),
    (pins, PINS, "torch==", "torch>="),
    (pins, PINS, "\npydantic==", "\npydantic-two=="),
    (pins, PINS, "\nfastavro==", "\nfastavro-two=="),
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
    for name in (
        "Dockerfile",
        ".dockerignore",
        "pyproject.toml",
        "README.md",
        "setup.py",
        "LICENSE",
        "NOTICE",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("schemas", "worker/inference/bundled"):
        (tmp_path / name).mkdir(parents=True)
    for copied in MODEL_CODE:
        (tmp_path / copied).touch()
    shutil.copytree(ROOT / "deploy" / "image", tmp_path / "deploy" / "image")
    shutil.copy(ROOT / PINS, tmp_path / PINS)
    text = Project(tmp_path).text(path)
    assert old in text
    (tmp_path / path).write_text(text.replace(old, new))
    assert set(check(Project(tmp_path))) - faults


def test_the_health_check_program_works() -> None:
    """It prints what the worker's own server answers, and succeeds on 200."""
    metrics = Metrics()
    server = HttpServer(HttpSettings(port=0), metrics, Progress(60.0, metrics, SystemClock()))
    try:
        alive, ready = healthy(server.port, "/livez"), healthy(server.port, "/readyz")
    finally:
        server.close()
    assert (alive.returncode, alive.stdout.strip()) == (0, "starting")
    assert (ready.returncode, ready.stdout.strip()) == (1, "starting")
    assert healthy(server.port, "/livez").returncode == 1


def healthy(port: int, path: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "deploy" / "image" / "healthy", path],
        env=child_environment(STREAMLABEL_HTTP_PORT=str(port)),
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_the_bundled_model_is_made_of_the_files_that_its_stage_copies(tmp_path: Path) -> None:
    """Another import there would fail the build of the image."""
    for name in MODEL_CODE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    folder = "worker/inference/bundled"
    shutil.copytree(ROOT / folder, tmp_path / folder)
    code = "import worker.inference.bundled.merge; print(worker.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=child_environment(), check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(tmp_path / "worker" / "__init__.py")


def requirements(folder: Path, pyproject: str) -> dict[str, str]:
    """Return what deploy/image/requirements.py writes, by file."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(pyproject)
    shutil.copy(ROOT / PINS, folder)
    command = [sys.executable, ROOT / "deploy" / "image" / "requirements.py", "registry", "out"]
    subprocess.run(command, cwd=folder, check=True)
    return {file.name: file.read_text() for file in (folder / "out").iterdir()}


def test_only_a_dependency_of_pyproject_changes_what_is_installed(tmp_path: Path) -> None:
    """The layers of torch and of the packages are made again when one of these files changes."""
    text = Project(ROOT).text("pyproject.toml")
    before = requirements(tmp_path / "before", text)
    assert before["torch.txt"].startswith("torch==")
    assert before["torch.txt"].count("\n") == 1
    assert "fastavro" in before["packages.txt"]
    assert "boto" not in before["packages.txt"]
    other = requirements(tmp_path / "other", text.replace("line-length = 100", "line-length = 99"))
    assert other == before
    new = requirements(tmp_path / "new", text.replace('"rich>=14"', '"rich>=14.1"'))
    assert new != before


@pytest.fixture
def install(tmp_path: Path) -> Install:
    """Run the script that installs a layer, with a pip that leaves one module."""
    packages = tmp_path / "lib/python3.11/site-packages"
    packages.mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python").symlink_to(sys.executable)
    text = (ROOT / "deploy/image/install").read_text(encoding="utf-8")
    for path in ("environment=/opt/streamlabel\n", "/opt/pip/pip "):
        assert path in text
    text = text.replace("/opt/streamlabel", str(tmp_path)).replace("/opt/pip/pip ", "true ")

    def run(code: str) -> subprocess.CompletedProcess[str]:
        (packages / "module.py").write_text(code)
        command = ["bash", "-c", text, "install", "some-package"]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    return run


def test_installed_code_is_compiled(install: Install, tmp_path: Path) -> None:
    done = install("x = 1\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert [file.stem.partition(".")[0] for file in tmp_path.rglob("*.pyc")] == ["module"]


def test_code_that_can_not_be_compiled_fails_the_layer(
    install: Install,
) -> None:
    """Both the file and its fault are told."""
    done = install("def (\n")
    assert done.returncode == 1
    assert "ERROR: a package's code can't be compiled" in done.stderr
    assert "module.py" in done.stdout
