"""Renders the project's chart with Helm, as an install would."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from worker.settings import read_environment

ROOT: Final = Path(__file__).parents[2]
CHART: Final = ROOT / "deploy" / "chart"
EXAMPLES: Final = sorted((CHART / "examples").glob("*.yaml"))
HELM: Final = shutil.which(read_environment("HELM") or "helm")

needs_helm = pytest.mark.skipif(HELM is None, reason="needs Helm: set HELM to its program")

Manifest = dict[str, Any]
Values = Mapping[str, Any]


class Refused(Exception):
    """Helm refused the values; the message is what a person reads."""


def helm(*arguments: str) -> str:
    """Run Helm and return its output.

    Raises:
        Refused: it failed.
    """
    assert HELM, "the test is not marked with needs_helm"
    done = subprocess.run(
        [HELM, *arguments], check=False, capture_output=True, text=True, timeout=60
    )
    if done.returncode:
        raise Refused(done.stderr)
    return done.stdout


def render(folder: Path, values: Values | None = None, chart: Path = CHART) -> list[Manifest]:
    """Return what an install as `labeller` creates with these values, which go through `folder`."""
    file = folder / "values.yaml"
    file.write_text(yaml.safe_dump(dict(values or {})), encoding="utf-8")
    return _rendered(chart, file)


@cache
def example(name: str) -> list[Manifest]:
    """Return what an install creates with one of the chart's examples. Do not change it."""
    return _rendered(CHART, CHART / "examples" / f"{name}.yaml")


def _rendered(chart: Path, file: Path) -> list[Manifest]:
    text = helm("template", "labeller", str(chart), "--values", str(file))
    return [document for document in yaml.safe_load_all(text) if document]


def one(manifests: list[Manifest], kind: str) -> Manifest:
    """Return the only manifest of a kind."""
    [found] = [manifest for manifest in manifests if manifest["kind"] == kind]
    return found


def workload(manifests: list[Manifest]) -> Manifest:
    """Return the Deployment or StatefulSet."""
    kinds = {manifest["kind"] for manifest in manifests} & {"Deployment", "StatefulSet"}
    return one(manifests, kinds.pop())


def pod(manifests: list[Manifest]) -> dict[str, Any]:
    """Return the pod's specification."""
    spec: dict[str, Any] = workload(manifests)["spec"]["template"]["spec"]
    return spec


def container(manifests: list[Manifest]) -> dict[str, Any]:
    """Return the worker's container."""
    [found] = [item for item in pod(manifests)["containers"] if item["name"] == "streamlabel"]
    result: dict[str, Any] = found
    return result


def environment(manifests: list[Manifest]) -> dict[str, str]:
    """Return the variables of the worker that have a value of their own."""
    return {item["name"]: item["value"] for item in container(manifests)["env"] if "value" in item}


def settings_file(manifests: list[Manifest]) -> str:
    """Return the text of the streamlabel.toml."""
    [text] = [
        manifest["data"]["streamlabel.toml"]
        for manifest in manifests
        if "streamlabel.toml" in manifest.get("data", {})
    ]
    return str(text)
