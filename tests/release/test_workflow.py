"""The release's workflow is valid, asks for no more rights than it needs, and names what exists.

Each check is a function that returns faults, and a planted fault shows that it finds one.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.release.tree import ROOT

WORKFLOW = "deploy/release/workflow.yml"
ACTIVE = ROOT / ".github/workflows/release.yml"
TEXT = (ROOT / WORKFLOW).read_text(encoding="utf-8")
PUBLISHING = {"package", "image"}
# The rights of each job besides reading: https://docs.github.com/actions/reference/workflow-syntax
RIGHTS = {
    "test": set(),
    "build": {"id-token", "attestations"},
    "package": {"id-token"},
    "image": {"packages", "id-token", "attestations"},
    "notes": {"contents"},
}

_PINNED = re.compile(r"uses: [\w-]+/[\w/-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$")
_MADE_BY_THE_RUN = re.compile(r"^(dist|all|chart|image\.tar\.gz|torch\.in)\b")
_PATH = re.compile(
    r"(?<![\w./$-])((?:deploy|tests|docs|benchmarks)/[\w@./-]+|[A-Z]{4,}(?:\.md)?\b)"
)

Faults = Iterator[str]


def parsed(text: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def jobs(text: str) -> dict[str, Any]:
    found: dict[str, Any] = parsed(text)["jobs"]
    return found


def scripts(text: str) -> Iterator[str]:
    for job in jobs(text).values():
        yield from (step["run"] for step in job["steps"] if "run" in step)


def rights(text: str) -> Faults:
    """Check that a job may write what it must, and nothing else."""
    if parsed(text)["permissions"] != {}:
        yield "the workflow grants rights to every job"
    for name, job in jobs(text).items():
        granted = {right for right, level in job["permissions"].items() if level == "write"}
        if granted != RIGHTS[name]:
            yield f"job {name} may write {sorted(granted)}"
        if name in PUBLISHING and job.get("environment") != "release":
            yield f"job {name} publishes without the approval that the environment asks for"
        if "secrets." in json.dumps(job):
            yield f"job {name} uses a stored secret"
    for step in re.findall(r"uses: actions/checkout@.*\n(.*)", text):
        if "persist-credentials: false" not in step:
            yield "a checkout leaves its token in the tree"


def pins(text: str) -> Faults:
    """Check that every action is pinned to a commit, and one commit for each version."""
    used = [line.strip().removeprefix("- ") for line in text.splitlines() if "uses: " in line]
    yield from (f"{line} is not pinned to a commit" for line in used if not _PINNED.match(line))
    commits = dict(line.removeprefix("uses: ").split("@", 1) for line in used)
    for line in used:
        name, _, commit = line.removeprefix("uses: ").partition("@")
        if commits[name] != commit:
            yield f"{name} is used at two commits"


def order(text: str) -> Faults:
    """Check that nothing is published that was not tested and built, on a tag alone."""
    if list(parsed(text)[True]) != ["push"] or list(parsed(text)[True]["push"]) != ["tags"]:
        yield "it runs on more than a tag"  # YAML reads the key `on` as true
    needs = {name: job.get("needs", []) for name, job in jobs(text).items()}
    for name, needed in needs.items():
        listed = [needed] if isinstance(needed, str) else needed
        yield from (
            f"{name} needs {other}, which is no job" for other in listed if other not in needs
        )
    if needs["build"] != "test":
        yield "it builds without tests"
    yield from (
        f"{name} publishes before the build" for name in PUBLISHING if needs[name] != "build"
    )


def names(text: str) -> Faults:
    """Check that make targets and files exist, and that the shell can read each script."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for script in scripts(text):
        done = subprocess.run(
            ["bash", "-n"], input=script, text=True, capture_output=True, check=False
        )
        if done.returncode:
            yield f"bash can't read {script!r}"
        for target in re.findall(r"^make ([a-z-]+)", script, re.MULTILINE):
            if not re.search(rf"^{target}:", makefile, re.MULTILINE):
                yield f"make {target} does not exist"
        for path in _PATH.findall(re.sub(r"\$\{?\w+|\w+=", "", script)):
            if not _MADE_BY_THE_RUN.match(path) and not (ROOT / path).exists():
                yield f"{path} does not exist"
    for name, job in jobs(text).items():
        ids = {step.get("id") for step in job["steps"]}
        for used in set(re.findall(r"steps\.(\w+)\.outputs", json.dumps(job))) - ids:
            yield f"no step of job {name} has the id {used}"


def attested(text: str) -> Faults:
    """Check that each push has a statement of its origin, beside a list of components."""
    for name, job in jobs(text).items():
        attested = [step["with"] for step in job["steps"] if "/attest@" in step.get("uses", "")]
        origins = " ".join(str(given) for given in attested if "sbom-path" not in given)
        for step in job["steps"]:
            if "digest=" in step.get("run", "") and f"steps.{step['id']}.outputs." not in origins:
                yield f"what step {step['id']} of job {name} pushes has no statement of its origin"
            if (
                re.search(r"(docker|helm) push", step.get("run", ""))
                and "digest=" not in step["run"]
            ):
                yield f"a push of job {name} tells no digest"


def published(text: str) -> Faults:
    """Check that each image of the chart is pushed, and that no prerelease becomes the latest."""
    pushed = " ".join(re.findall(r"docker push (.*)", text))
    values = yaml.safe_load((ROOT / "deploy/chart/values.yaml").read_text(encoding="utf-8"))
    for suffix in ("", values["gpu"]["tagSuffix"]):
        if f':${{TAG#v}}{suffix}"' not in pushed:
            yield f"no image with the tag VERSION{suffix} is pushed"
    [script] = [script for script in scripts(text) if "gh release create" in script]
    for tag, kind in (("v1.2.3", "--latest"), ("v1.2.3rc1", "--prerelease")):
        given = subprocess.run(
            ["bash", "-euc", f'gh() {{ printf "%s\\n" "$@"; }}\n{script}'],
            env={"TAG": tag},
            text=True,
            capture_output=True,
            check=False,
        )
        if kind not in given.stdout.splitlines():
            yield f"the release of {tag} is not {kind}"


CHECKS: list[Callable[[str], Faults]] = [rights, pins, order, names, attested, published]

SABOTAGE = [
    (rights, "permissions: {}", "permissions: {contents: write}"),
    (rights, "      packages: write\n", "      packages: write\n      contents: write\n"),
    (rights, "    environment: release\n", ""),
    (rights, "github.token", "secrets.TOKEN"),
    (rights, "with: {persist-credentials: false}", "with: {fetch-depth: 1}"),
    (pins, "@de0fac2e4500dabe0009e67214ff5f5447ce83dd # v6.0.2", "@v6"),
    (order, '  push:\n    tags: ["v', '  pull_request:\n  push:\n    tags: ["v'),
    (order, "    needs: test\n", ""),
    (order, "    needs: build\n", "    needs: test\n"),
    (order, "needs: [package, image]", "needs: [package, picture]"),
    (names, "make release-check", "make release-chek"),
    (names, "cp deploy/requirements.txt", "cp deploy/requirement.txt"),
    (names, " NOTICE dist/", " NOTICES dist/"),
    (names, 'test -n "$REGISTRY" ||', 'test -n "$REGISTRY ||'),
    (names, "- id: push\n", "- id: pushed\n"),
    (attested, "steps.cuda.outputs.digest", "steps.push.outputs.digest"),
    (attested, "steps.chart.outputs.digest", "steps.push.outputs.digest"),
    (attested, 'echo "digest=$(sed', 'echo "$(sed'),
    (published, 'docker push "$REGISTRY/streamlabel:${TAG#v}-cuda"', "true"),
    (published, "*[a-z]*) kind", "none) kind"),
]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_workflow_has_no_fault(check: Callable[[str], Faults]) -> None:
    assert list(check(TEXT)) == []


@pytest.mark.parametrize(("check", "old", "new"), SABOTAGE)
def test_each_check_finds_a_planted_fault(
    check: Callable[[str], Faults], old: str, new: str
) -> None:
    assert old in TEXT
    assert set(check(TEXT.replace(old, new, 1))) - set(check(TEXT))


def test_the_workflow_follows_the_published_schema() -> None:
    """As check-jsonschema ships it."""
    package = pytest.importorskip("check_jsonschema", reason="check-jsonschema is not installed")
    vendored = Path(str(package.__file__)).parent / "builtin_schemas/vendor/github-workflows.json"
    schema = json.loads(vendored.read_text(encoding="utf-8"))
    checker = jsonschema.validators.validator_for(schema)(schema)
    workflow = parsed(TEXT.replace("\non:", '\n"on":'))
    checker.validate(workflow)
    workflow["jobs"]["test"]["timeout"] = 90
    assert not checker.is_valid(workflow)


def test_the_active_copy_is_this_file() -> None:
    """It is active only where somebody has copied it."""
    assert not ACTIVE.exists() or ACTIVE.read_text(encoding="utf-8") == TEXT
