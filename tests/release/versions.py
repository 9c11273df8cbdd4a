"""The version is in one place, pyproject.toml; every other mention of it agrees. No tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

Faults = Iterator[str]

CHANGELOG = "CHANGELOG.md"
CHART = "deploy/chart/Chart.yaml"
UNRELEASED = "unreleased"

_SECTION = r"^## \[{}\] - (\S+)$(.*?)(?=^## |\Z)"
_DATE = re.compile(r"\d{4}-\d\d-\d\d")
_VERSION = re.compile(r"(\d+\.\d+\.\d+)(?:(a|b|rc)(\d+))?")
# An image or a label of this project that carries a version.
_TAGGED = re.compile(r"\bstreamlabel:(\d[\w.+-]*)|image\.version[\"']?[=:]\s*[\"']?(\d[\w.+-]*)")


def versions(root: Path, project: Any, tag: str = "") -> Faults:
    """Check changelog, chart, image and tag.

    Args:
        root: the tree.
        project: of pyproject.toml.
        tag: the tag that is released; then the changelog must have a date.
    """
    version = str(project["version"])
    if not _VERSION.fullmatch(version):
        yield f"version {version} is not of the form 1.2.3 or 1.2.3rc1"
    if tag and tag != f"v{version}":
        yield f"the tag is {tag}, but pyproject.toml has version {version}: tag v{version}"
    yield from _changelog(root, version, released=bool(tag))
    yield from _chart(root / CHART, version)
    for path in deployed(root):
        for found in _TAGGED.findall(path.read_text(encoding="utf-8")):
            if (other := "".join(found)) != version:
                yield f"{path.relative_to(root)} has version {other}, not {version}"


def released_on(root: Path, version: str) -> str | None:
    """Return the date of a version in the changelog, or `unreleased`; without a section, None."""
    section = re.search(
        _SECTION.format(re.escape(version)),
        (root / CHANGELOG).read_text(encoding="utf-8"),
        re.MULTILINE | re.DOTALL,
    )
    return section[1] if section and section[2].strip() else None


def deployed(root: Path) -> list[Path]:
    """Return the files that may name an image of this project."""
    found = [root / "Dockerfile", *root.glob("docker-compose*.yml")]
    found += [path for path in (root / "deploy").rglob("*") if path.suffix in (".yaml", ".yml")]
    return [path for path in found if path.is_file()]


def _changelog(root: Path, version: str, *, released: bool) -> Faults:
    date = released_on(root, version)
    if date is None:
        yield f"{CHANGELOG} has no section `## [{version}] - DATE` with an entry"
    elif date == UNRELEASED and released:
        yield f"{CHANGELOG} says that {version} is unreleased: write the date of the release"
    elif date != UNRELEASED and not _DATE.fullmatch(date):
        yield f"{CHANGELOG}: the date of {version} is {date}, not of the form 2026-01-31"


def semantic(version: str) -> str:
    """Return the spelling of Semantic Versioning, which Helm wants: 1.2.3-rc.1 for 1.2.3rc1."""
    return _VERSION.sub(lambda m: m[1] + (f"-{m[2]}.{m[3]}" if m[2] else ""), version)


def _chart(path: Path, version: str) -> Faults:
    if not path.is_file():
        return
    chart = yaml.safe_load(path.read_text(encoding="utf-8"))
    # appVersion is the tag of the image. A bare 0.10 would be read as a number.
    for name, wanted in (("appVersion", version), ("version", semantic(version))):
        if chart.get(name) != wanted:
            yield f"{CHART}: {name} is {chart.get(name)!r}, not '{wanted}'"
