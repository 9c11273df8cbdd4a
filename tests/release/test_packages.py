"""Wheel and source distribution are complete, and the checks of a release find planted faults.

The packages are built here without isolation, so that no index is needed.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.release import hashes, packages
from tests.release.tree import ROOT, CheckFailed, copy_tree, run
from tests.release.versions import semantic, versions
from worker.settings import child_environment

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONSTRAINTS = (ROOT / hashes.CONSTRAINTS).read_text(encoding="utf-8")
REQUIREMENTS = (ROOT / hashes.REQUIREMENTS).read_text(encoding="utf-8")
DECLARED = {"": PROJECT["dependencies"]} | PROJECT["optional-dependencies"]
BUILD = """
import sys
from setuptools import build_meta
folder = sys.argv[1]  # build_meta has arguments of its own for setup.py
build_meta.build_wheel(folder)
build_meta.build_sdist(folder)
"""

Files = dict[str, bytes]


class Built(NamedTuple):
    wheel: Files
    sdist: Files


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Return the files of both packages, built from a copy of the tree."""
    tree, dist = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("dist")
    copy_tree(tree)
    subprocess.run(
        [sys.executable, "-c", BUILD, str(dist)],
        cwd=tree,
        env=child_environment(),
        check=True,
        capture_output=True,
    )
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    return Built(packages.wheel_files(wheel), packages.sdist_files(sdist))


def test_the_packages_have_no_fault(built: Built) -> None:
    assert list(packages.contents(built.wheel, built.sdist, PROJECT)) == []
    assert list(packages.same_wheel(built.wheel, built.wheel)) == []
    assert list(packages.metadata(built.wheel, PROJECT)) == []


LICENCE = f"streamlabel-{PROJECT['version']}.dist-info/licenses/NOTICE"
MISSING = ["worker/py.typed", "worker/web/page.html", "schemas/classification.avsc", LICENCE]
PRIVATE = [
    "tests/test_walls.py",
    "worker/tests/test_walls.py",
    "worker/__pycache__/clock.pyc",
    "worker/.env",
    "schemas/key.pem",
    "worker/clock.py~",
]


@pytest.mark.parametrize("name", MISSING)
def test_a_file_that_is_missing_is_found(built: Built, name: str) -> None:
    wheel = {k: v for k, v in built.wheel.items() if k != name}
    (found,) = packages.contents(wheel, built.sdist, PROJECT)
    assert found.startswith("the wheel lacks")
    kept = {k: v for k, v in built.sdist.items() if k != name.rpartition("licenses/")[2]}
    (found,) = packages.contents(built.wheel, kept, PROJECT)
    assert found.startswith("the source distribution lacks")


@pytest.mark.parametrize("name", PRIVATE)
def test_a_private_file_is_found(built: Built, name: str) -> None:
    more = {name: b""}
    assert list(packages.contents(built.wheel | more, built.sdist, PROJECT))
    assert list(packages.contents(built.wheel, built.sdist | more, PROJECT))


def test_a_file_outside_the_packages_is_found(built: Built) -> None:
    """It would be installed beside other projects' packages, under a common name."""
    (found,) = packages.contents(built.wheel | {"benchmark.py": b""}, built.sdist, PROJECT)
    assert found == "the wheel has benchmark.py, which is in none of its packages"


def test_a_wheel_that_differs_from_that_of_the_tree_is_found(built: Built) -> None:
    other = dict(built.wheel)
    del other["worker/clock.py"]
    other |= {"worker/more.py": b"", "worker/errors.py": b""}
    assert sorted(packages.same_wheel(built.wheel, other)) == [
        "a build from the sdist adds worker/more.py",
        "a build from the sdist has another worker/errors.py",
        "a build from the sdist lacks worker/clock.py",
    ]


METADATA = [
    (r"(?m)^Author: .*\n", "", "no author"),
    (r"(?m)^Keywords: .*\n", "", "no keywords"),
    (r"(?m)^License-Expression: .*\n", "", "no license-expression"),
    (r"(?m)^Project-URL: Changelog.*\n", "", "no address of Changelog"),
    (r"(?m)^Project-URL: Issues, https:", "Project-URL: Issues, file:", "no address of Issues"),
    (r"(?m)^Classifier: Programming Language :: Python :: 3.11\n", "", "no classifier Programming"),
    (r"(?m)^License-File: NOTICE\n", "", "does not name the licence NOTICE"),
    (r"\]\(https://github.com/[^)]*LICENSE\)", "](LICENSE)", "links to LICENSE"),
    (r"(?s)\n\n.*", "\n\nshort", "no README"),
]


@pytest.mark.parametrize(("pattern", "new", "fault"), METADATA)
def test_incomplete_metadata_is_found(built: Built, pattern: str, new: str, fault: str) -> None:
    name = next(name for name in built.wheel if name.endswith("METADATA"))
    text, number = re.subn(pattern, new, built.wheel[name].decode(), count=1)
    assert number == 1
    found = list(packages.metadata(built.wheel | {name: text.encode()}, PROJECT))
    assert any(fault in line for line in found), found


def tree(folder: Path, changes: dict[str, Callable[[str], str]] | None = None) -> Path:
    """Return a folder with the files that carry a version."""
    texts = {
        "CHANGELOG.md": f"# Changelog\n\n## [{PROJECT['version']}] - unreleased\n\n- All.\n",
        "deploy/chart/Chart.yaml": "".join(
            f'{name}: "{PROJECT["version"]}"\n' for name in ("version", "appVersion")
        ),
        "docker-compose.yml": "services: {worker: {image: 'streamlabel:local'}}\n",
        "deploy/manifests/worker.yaml": f"image: streamlabel:{PROJECT['version']}\n",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        change = (changes or {}).get(name, lambda text: text)
        path.write_text(change(text), encoding="utf-8")
    return folder


def test_the_version_is_the_same_everywhere() -> None:
    """In pyproject.toml, CHANGELOG.md, the chart, and wherever an image is named."""
    assert list(versions(ROOT, PROJECT)) == []


VERSIONS: list[tuple[str, str, str, str]] = [
    ("CHANGELOG.md", PROJECT["version"], "9.9.9", "has no section"),
    ("CHANGELOG.md", "- All.\n", "", "has no section"),
    ("CHANGELOG.md", "unreleased", "soon", "not of the form 2026-01-31"),
    (
        "deploy/chart/Chart.yaml",
        f'appVersion: "{PROJECT["version"]}"',
        "appVersion: 0.10",
        "is 0.1,",
    ),
    (
        "deploy/chart/Chart.yaml",
        f'version: "{PROJECT["version"]}"\napp',
        'version: "0.7.0"\napp',
        "version is '0.7.0', not",
    ),
    ("docker-compose.yml", "streamlabel:local", "streamlabel:0.0.9", "has version 0.0.9"),
    ("deploy/manifests/worker.yaml", PROJECT["version"], "9.9.9", "has version 9.9.9"),
]


@pytest.mark.parametrize(("path", "old", "new", "fault"), VERSIONS)
def test_another_version_is_found(
    path: str, old: str, new: str, fault: str, tmp_path: Path
) -> None:
    assert list(versions(tree(tmp_path), PROJECT)) == []
    found = list(versions(tree(tmp_path, {path: lambda text: text.replace(old, new)}), PROJECT))
    assert len(found) == 1
    assert fault in found[0]


def test_a_tag_needs_its_version_and_a_date(tmp_path: Path) -> None:
    tag = f"v{PROJECT['version']}"
    (unreleased,) = versions(tree(tmp_path), PROJECT, tag)
    assert "is unreleased: write the date" in unreleased
    dated = {"CHANGELOG.md": lambda text: text.replace("unreleased", "2026-12-01")}
    assert list(versions(tree(tmp_path, dated), PROJECT, tag)) == []
    (other,) = versions(tmp_path, PROJECT, "v9.9.9")
    assert "the tag is v9.9.9" in other
    assert list(versions(tmp_path, PROJECT | {"version": "1"}))


@pytest.mark.parametrize(
    ("version", "chart"),
    [("1.2.3", "1.2.3"), ("1.2.3rc1", "1.2.3-rc.1"), ("2.0.0b12", "2.0.0-b.12")],
)
def test_the_chart_of_a_version_spells_it_as_helm_wants(
    version: str, chart: str, tmp_path: Path
) -> None:
    assert semantic(version) == chart
    texts: dict[str, Callable[[str], str]] = {
        "CHANGELOG.md": lambda text: text.replace(PROJECT["version"], version),
        "deploy/manifests/worker.yaml": lambda text: text.replace(PROJECT["version"], version),
        "deploy/chart/Chart.yaml": lambda _: f'version: "{chart}"\nappVersion: "{version}"\n',
    }
    assert list(versions(tree(tmp_path, texts), {"version": version})) == []


def test_requirements_with_hashes_are_those_that_are_tested() -> None:
    assert list(hashes.complete(REQUIREMENTS, CONSTRAINTS, DECLARED)) == []


HASHES: list[tuple[str, str, str]] = [
    (r"(?m)^pydantic==\S+", "pydantic==1.0", "pydantic is 1.0, but"),
    (r"(?s)\nrich==.*?\n(?=\w)", "\n", "rich>=14 is in pyproject.toml, but not"),
    (r"(?s)(\nrich==\S+).*?\n(?=\w)", r"\1\n", "rich has no hash"),
    (r"\Z", "torch==2.13.0 \\\n    --hash=sha256:00\n", "torch belongs to torch"),
]


@pytest.mark.parametrize(("pattern", "new", "fault"), HASHES)
def test_wrong_requirements_are_found(pattern: str, new: str, fault: str) -> None:
    text, number = re.subn(pattern, new, REQUIREMENTS, count=1)
    assert number == 1
    (found,) = hashes.complete(text, CONSTRAINTS, DECLARED)
    assert found.startswith(fault)


def test_a_hash_that_the_index_does_not_know_is_found() -> None:
    """More files of a release are no fault: a wheel may be added later."""
    ours = hashes.parsed("a==1 \\\n    --hash=sha256:01\nb==1 \\\n    --hash=sha256:02\n")
    more = hashes.parsed(
        "a==1 \\\n    --hash=sha256:01 \\\n    --hash=sha256:09\nb==1 \\\n    --hash=sha256:02\n"
    )
    assert list(hashes.offered(ours, more)) == []
    assert list(hashes.offered(more, ours)) == ["a: the index has no file with the hash sha256:09"]
    newer = hashes.parsed("a==2 \\\n    --hash=sha256:01\nc==1 \\\n    --hash=sha256:02\n")
    assert list(hashes.offered(ours, newer)) == [
        "a is 1, the index resolves 2",
        "b is no longer needed",
        "c is needed",
    ]


def test_a_program_that_fails_is_a_fault_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="exit code 3") as failed:
        run([sys.executable, "-c", "import sys; print('why'); sys.exit(3)"], cwd=tmp_path)
    assert failed.value.faults[1:] == ("why",)
    with pytest.raises(CheckFailed, match=r"did not end within 0.1 seconds"):
        run([sys.executable, "-c", "import time; time.sleep(60)"], cwd=tmp_path, timeout=0.1)


def test_a_copy_of_the_tree_has_only_tracked_files(tmp_path: Path) -> None:
    """As the next checkout will have them, and not what lies about here."""
    copy_tree(tmp_path)
    names: set[Any] = {path.name for path in tmp_path.iterdir()}
    assert {"pyproject.toml", "worker", "NOTICE"} <= names
    assert not names & {".venv", "dist", "build", ".git"}
