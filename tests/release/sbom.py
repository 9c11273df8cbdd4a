"""Lists of components (CycloneDX) of an environment and of a container image. No tests."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.release.tree import CheckFailed, NotPossible, Release, run

Document = dict[str, Any]

_VERSION = "1.6"  # of the format
_INSTALLED_IN_IMAGE = "/opt/streamlabel/lib/python3.11/site-packages"
_DEBIAN = "${Package} ${Version} ${Architecture}\n"


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
    return document


def of_image(image: str, release: Release) -> Document:
    """Return the list of an image's Python and Debian packages.

    An image has no pip. So the metadata of what is installed in it is copied to a virtual
    environment of this machine, which is then listed like any other.

    Raises:
        NotPossible: no container engine answers, or it does not have the image.
    """
    _there(image, release.scratch)
    folder = release.scratch / "image"
    run([sys.executable, "-m", "venv", "--without-pip", folder], cwd=release.scratch)
    packages = next(folder.glob("lib/python*/site-packages"))
    container = run(["docker", "create", image], cwd=release.scratch).strip()
    try:
        source = f"{container}:{_INSTALLED_IN_IMAGE}"
        run(["docker", "cp", source, release.scratch / "copied"], cwd=release.scratch)
    finally:
        run(["docker", "rm", container], cwd=release.scratch)
    for metadata in (release.scratch / "copied").glob("*.dist-info"):
        shutil.copytree(metadata, packages / metadata.name)
    shutil.rmtree(release.scratch / "copied")
    document = of_environment(folder, release)
    document["metadata"]["component"] |= {"type": "container", "name": image.partition(":")[0]}
    document["components"] += _debian(image, release.scratch)
    return document


def _there(image: str, folder: Path) -> None:
    if not shutil.which("docker"):
        raise NotPossible("there is no container engine (docker)")
    try:
        run(["docker", "info"], cwd=folder, timeout=60)
    except CheckFailed:
        raise NotPossible("no container engine answers (docker info)") from None
    try:
        run(["docker", "image", "inspect", image], cwd=folder)
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
