"""Checks of a wheel and a source distribution, from their files alone. No tests.

Each check yields the faults that it finds.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from email.message import Message
from email.parser import Parser
from pathlib import Path
from typing import Any

Faults = Iterator[str]

# Files that a worker needs besides its code.
NEEDED = (
    "schemas/asyncapi.json",
    "schemas/classification.avsc",
    "schemas/classification.proto",
    "schemas/classification.schema.json",
    "schemas/dead_letter.schema.json",
    "schemas/enriched_message.schema.json",
    "schemas/py.typed",
    "schemas/settings.schema.json",
    "schemas/text_message.schema.json",
    "worker/demo/blocked_words.txt",
    "worker/inference/bundled/adapter/README.md",
    "worker/inference/bundled/adapter/adapter_config.json",
    "worker/inference/bundled/adapter/adapter_model.safetensors",
    "worker/inference/bundled/never_train_on.txt",
    "worker/py.typed",
    "worker/web/icon.svg",
    "worker/web/page.css",
    "worker/web/page.html",
    "worker/web/page.js",
    "worker/web/uPlot.iife.min.js",
    "worker/web/uPlot.min.css",
)
# Only the source distribution has these: another build must be possible from it.
NEEDED_TO_BUILD = ("pyproject.toml", "setup.py", "README.md", "CHANGELOG.md", "PKG-INFO")
PACKAGES = ("worker/", "schemas/")

_PRIVATE = re.compile(
    r"(^|/)(\.[^/]+|__pycache__|tests?|benchmarks|build|dist|node_modules)(/|$)"
    r"|\.(pyc|pyo|orig|rej|log|pem|key|env)$|~$"
)
_LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
_AN_ADDRESS = re.compile(r"https?://")


def wheel_files(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def sdist_files(sdist: Path) -> dict[str, bytes]:
    """Return the files of a source distribution, without its folder's name."""
    files = {}
    with tarfile.open(sdist) as archive:
        for member in archive.getmembers():
            content = archive.extractfile(member)
            if content:
                files[member.name.partition("/")[2]] = content.read()
    return files


def metadata_of(files: Mapping[str, bytes]) -> Message:
    """Return a wheel's metadata."""
    name = next(name for name in files if name.endswith(".dist-info/METADATA"))
    return Parser().parsestr(files[name].decode())


def contents(wheel: Mapping[str, bytes], sdist: Mapping[str, bytes], project: Any) -> Faults:
    """Check that both have what is needed, and nothing private."""
    licences = [f"/licenses/{name}" for name in project["license-files"]]
    for needed in NEEDED:
        if needed not in wheel:
            yield f"the wheel lacks {needed}"
    for licence in licences:
        if not any(name.endswith(f".dist-info{licence}") for name in wheel):
            yield f"the wheel lacks the licence {licence.removeprefix('/licenses/')}"
    for needed in (*NEEDED, *NEEDED_TO_BUILD, *project["license-files"]):
        if needed not in sdist:
            yield f"the source distribution lacks {needed}"
    for name in wheel:
        if not name.startswith(PACKAGES) and ".dist-info/" not in name:
            yield f"the wheel has {name}, which is in none of its packages"
    for kind, files in (("wheel", wheel), ("source distribution", sdist)):
        yield from (f"the {kind} has {name}" for name in files if _PRIVATE.search(name))


def same_wheel(wheel: Mapping[str, bytes], again: Mapping[str, bytes]) -> Faults:
    """Check that the source distribution builds the wheel that the tree builds."""
    yield from (f"a build from the sdist lacks {name}" for name in wheel.keys() - again.keys())
    yield from (f"a build from the sdist adds {name}" for name in again.keys() - wheel.keys())
    for name in wheel.keys() & again.keys():
        if wheel[name] != again[name]:
            yield f"a build from the sdist has another {name}"


def metadata(files: Mapping[str, bytes], project: Any) -> Faults:
    """Check that a package index has all that it shows, and that its README stands alone."""
    found = metadata_of(files)
    values = {name.lower(): found.get_all(name) or [] for name in found.keys()}  # noqa: SIM118
    for name in ("author", "keywords", "summary", "license-expression", "requires-python"):
        if not values.get(name) or values[name] == [""]:
            yield f"the metadata has no {name}"
    urls = dict(url.split(", ", 1) for url in values.get("project-url", []))
    for name in ("Homepage", "Repository", "Documentation", "Changelog", "Issues"):
        if not _AN_ADDRESS.match(urls.get(name, "")):
            yield f"the metadata has no address of {name}"
    missing = set(project["license-files"]) - set(values.get("license-file", []))
    yield from (f"the metadata does not name the licence {name}" for name in sorted(missing))
    yield from _classified(values, project)
    yield from _readme(str(found.get_payload()))


def _classified(values: Mapping[str, list[str]], project: Any) -> Faults:
    classifiers = values.get("classifier", [])
    least = project["requires-python"].removeprefix(">=")
    for wanted in (
        f"Programming Language :: Python :: {least}",
        "Typing :: Typed",
        "Development Status :: ",
        "Operating System :: ",
        "Topic :: ",
    ):
        if not any(name.startswith(wanted) for name in classifiers):
            yield f"the metadata has no classifier {wanted}"


def _readme(text: str) -> Faults:
    if len(text) < 1000:
        yield "the metadata has no README"
    for target in _LINK.findall(text):
        if not _AN_ADDRESS.match(target):
            yield f"the README links to {target}, which a package index can't follow"
