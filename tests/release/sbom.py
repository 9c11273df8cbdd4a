"""Lists of components (CycloneDX) of an environment and of a container image. No tests."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.release.tree import CheckFailed, NotPossible, Release, run
from worker.inference.bundled.encoder import WEIGHTS_SHA256

Document = dict[str, Any]

_VERSION = "1.6"  # of the format
_INSTALLED_IN_IMAGE = "/opt/streamlabel/lib/python3.11/site-packages"
# Copies the packages' metadata alone: the packages have a gigabyte.
_COPY = (
    'docker run --rm --network none --entrypoint sh "$1" '
    f"-c 'cd {_INSTALLED_IN_IMAGE} && tar -c *.dist-info' | tar -x -C \"$2\""
)
_DEBIAN = "${Package} ${Version} ${Architecture}\n"
_LABEL = "org.opencontainers.image.version"
# Parts that no package manager knows; NOTICE has their licences.
_UPLOT = re.compile(r"uPlot \(v([\d.]+)\)")
_ENCODER: Document = {
    "bom-ref": "all-MiniLM-L6-v2",
    "type": "machine-learning-model",
    "name": "all-MiniLM-L6-v2",
    "hashes": [{"alg": "SHA-256", "content": WEIGHTS_SHA256}],
    "licenses": [{"license": {"id": "Apache-2.0"}}],
}


def of_environment(environment: Path, release: Release) -> Document:
    """Return the list of a virtual environment's packages, with licences and dependencies."""
    listed = run(
        [
            *(sys.executable, "-m", "cyclonedx_py", "environment", environment),
            *("--pyproject", release.tree / "pyproject.toml", "--output-format", "JSON"),
            *("--spec-version", _VERSION, "--output-reproducible"),
        ],
        cwd=release.scratch,
    )
    document: Document = json.loads(listed)
    script = (release.tree / "worker/web/uPlot.iife.min.js").read_text(encoding="utf-8")
    found = _UPLOT.search(script)
    if not found:
        raise CheckFailed("worker/web/uPlot.iife.min.js does not begin with its version")
    purl = f"pkg:npm/uplot@{found[1]}"
    document["components"].append(
        {
            "bom-ref": purl,
            "type": "library",
            "name": "uplot",
            "version": found[1],
            "purl": purl,
            "licenses": [{"license": {"id": "MIT"}}],
        }
    )
    return document


def of_image(image: str, release: Release) -> Document:
    """Return the list of an image's Python and Debian packages.

    An image has no pip. So the metadata of what is installed in it is copied to a virtual
    environment of this machine, which is then listed like any other.

    Raises:
        NotPossible: no container engine answers, or it does not have the image.
        CheckFailed: the image's label has another version.
    """
    labelled = _label(image, release.scratch)
    if labelled != release.version:
        raise CheckFailed(f"{image} has the version {labelled} in {_LABEL}, not {release.version}")
    folder = release.scratch / "image"
    run([sys.executable, "-m", "venv", "--without-pip", folder], cwd=release.scratch)
    packages = next(folder.glob("lib/python*/site-packages"))
    run(["sh", "-ec", _COPY, "sh", image, packages], cwd=release.scratch)
    if not any(packages.glob("*.dist-info")):
        raise CheckFailed(f"{image} has no packages in {_INSTALLED_IN_IMAGE}")
    document = of_environment(folder, release)
    document["metadata"]["component"] |= {"type": "container", "name": image.partition(":")[0]}
    document["components"] += [_ENCODER, *_debian(image, release.scratch)]
    return document


def _label(image: str, folder: Path) -> str:
    if not shutil.which("docker"):
        raise NotPossible("there is no container engine (docker)")
    try:
        run(["docker", "info"], cwd=folder, timeout=60)
    except CheckFailed:
        raise NotPossible("no container engine answers (docker info)") from None
    form = f'{{{{index .Config.Labels "{_LABEL}"}}}}'
    try:
        return run(["docker", "image", "inspect", "--format", form, image], cwd=folder).strip()
    except CheckFailed:
        raise NotPossible(f"the engine has no image {image}: `make image` builds it") from None


def _debian(image: str, folder: Path) -> Iterator[Document]:
    query = ["docker", "run", "--rm", "--network", "none", "--entrypoint", "dpkg-query", image]
    for line in run([*query, "-W", "-f", _DEBIAN], cwd=folder).splitlines():
        name, version, architecture = line.split()
        purl = f"pkg:deb/debian/{name}@{version.replace('+', '%2B')}?arch={architecture}"
        yield {
            "bom-ref": purl,
            "name": name,
            "purl": purl,
            "type": "library",
            "version": version,
        }


def faults(document: Document, wanted: Mapping[str, str]) -> Iterator[str]:
    """Check a list against CycloneDX's schema, and against versions by the name of a component."""
    from cyclonedx.schema import SchemaVersion  # noqa: PLC0415  an extra that tests lack
    from cyclonedx.validation.json import JsonStrictValidator  # noqa: PLC0415  the same

    error = JsonStrictValidator(SchemaVersion.from_version(_VERSION)).validate_str(
        json.dumps(document)
    )
    if error:
        yield f"it does not follow CycloneDX {_VERSION}: {error}"[:400]
    own = document["metadata"].get("component", {})
    listed = {
        part["name"].lower().replace("_", "-"): part.get("version")
        for part in [own, *document.get("components", [])]
        if "name" in part
    }
    for name, version in wanted.items():
        if name not in listed:
            yield f"it lacks {name}"
        elif listed[name] != version:
            yield f"it has {name} {listed[name]}, not {version}"
