"""Only our code and files with a known hash run: none from the current folder or an index."""

from __future__ import annotations

import ast
import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.workers import clock, wait_until
from worker.demo.helpers import Helpers
from worker.demo.posts import SampleUnavailable, load_rated
from worker.demo.workers import DemoWorkers, run_command
from worker.packages import FetchFailed, Package
from worker.processes import Interrupts

ROOT = Path(__file__).parent.parent
STARTERS = sorted([*(ROOT / "worker").rglob("*.py"), ROOT / "benchmarks" / "goals.py"])
PLANTED = "from pathlib import Path\nPath({marker!r}).touch()\n"


# -- the current folder --------------------------------------------------------------------------


def bare_starts(path: Path) -> Iterator[str]:
    """Yield Python commands that would put the current folder first on the path."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        elements = node.elts if isinstance(node, ast.List | ast.Tuple) else []
        strings = [word.value if isinstance(word, ast.Constant) else None for word in elements]
        for before, word in zip([None, *strings], strings, strict=False):
            if word in ("-m", "-c") and before not in ("-P", "-S"):
                yield ast.unparse(node)


@pytest.mark.parametrize("path", STARTERS, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_python_is_started_without_the_current_folder(path: Path) -> None:
    assert list(bare_starts(path)) == []


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a folder with modules of our names; return the file that running one would create."""
    folder, marker = tmp_path / "here", tmp_path / "ran"
    (folder / "worker").mkdir(parents=True)
    for name in ("worker/__init__", "worker/__main__", "pip", "schemas", "ctypes"):
        (folder / f"{name}.py").write_text(PLANTED.format(marker=str(marker)))
    monkeypatch.chdir(folder)
    return marker


@pytest.mark.usefixtures("index")
def test_the_demo_runs_our_modules(planted: Path, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    with Interrupts(clock) as interrupts, ExitStack() as stack:
        helpers = Helpers(tmp_path / "logs", stack, interrupts, clock)
        with pytest.raises(SampleUnavailable, match="could not fetch"):
            helpers.tweets(tmp_path / "cache")
        workers = DemoWorkers(
            run_command({"--no-such": "flag"}), tmp_path / "logs", interrupts, clock
        )
        stack.callback(workers.end)
        workers.start(1)
        process = workers._workers[0].process
        wait_until(lambda: process.poll() is not None, what="the flag was refused")
        assert process.returncode == 2
    assert not planted.exists()


# -- what pip fetches ----------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is pip's only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_BUILD_ISOLATION", "0")  # pip's value for "not isolated"
    return folder


def source_distribution(folder: Path, name: str, version: str, marker: Path) -> Path:
    """Make a source distribution whose setup.py creates `marker`."""
    setup = f"{PLANTED.format(marker=str(marker))}from setuptools import setup\n"
    setup += f"setup(name={name!r}, version={version!r}, py_modules=[])\n"
    made = folder / f"{name}-{version}.tar.gz"
    with tarfile.open(made, "w:gz") as archive:
        entry = tarfile.TarInfo(f"{name}-{version}/setup.py")
        entry.size = len(setup)
        archive.addfile(entry, io.BytesIO(setup.encode()))
    return made


def wheel(folder: Path, name: str, version: str) -> Path:
    made, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(f"{name}/data.txt", "data")
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return made


def test_a_download_with_another_hash_does_not_run(index: Path, tmp_path: Path) -> None:
    """Pip would run its setup.py to learn its name."""
    source_distribution(index, "vaderSentiment", "3.3.2", tmp_path / "ran")
    with pytest.raises(SampleUnavailable) as refused:
        load_rated("tweets", tmp_path / "cache")
    assert not (tmp_path / "ran").exists()
    assert "DO NOT MATCH THE HASHES" in str(refused.value)
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.parametrize("make", [source_distribution, wheel])
def test_a_file_with_the_right_hash_is_fetched(
    index: Path, tmp_path: Path, planted: Path, make: object
) -> None:
    made = (
        wheel(index, "ours", "1.0")
        if make is wheel
        else source_distribution(index, "ours", "1.0", tmp_path / "setup ran")
    )
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    package, folder = Package("ours==1.0", made.name, digest, timeout=120), tmp_path / "got"
    folder.mkdir()
    assert package.fetch(folder).read_bytes() == made.read_bytes()
    assert [file.name for file in folder.iterdir()] == [made.name]
    assert not planted.exists(), "pip is the installed one"


def test_a_wheel_with_another_hash_is_refused(index: Path, tmp_path: Path) -> None:
    made = wheel(index, "ours", "1.0")
    with pytest.raises(FetchFailed, match=r"pip could not fetch ours==1\.0: ERROR: .*HASHES"):
        Package("ours==1.0", made.name, "0" * 64, timeout=120).fetch(tmp_path)


def test_a_missing_package_is_reported(index: Path, tmp_path: Path) -> None:
    with pytest.raises(FetchFailed, match=r"could not fetch nowhere==1\.0: ERROR: "):
        Package("nowhere==1.0", "nowhere-1.0.tar.gz", "0" * 64, timeout=120).fetch(tmp_path)


def test_an_index_that_does_not_answer_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Package("ours==1.0", "ours-1.0.tar.gz", "0" * 64, timeout=0.2)
    monkeypatch.setattr(Package, "_command", lambda *_: ["sleep", "60"])
    with pytest.raises(FetchFailed, match=r"did not fetch ours==1\.0 within 0\.2 seconds"):
        package.fetch(tmp_path)


# -- what is installed ---------------------------------------------------------------------------


def test_no_extra_installs_a_library_that_slows_the_start() -> None:
    """Transformers imports scikit-learn, which imports scipy, if they are installed."""
    names: set[str] = set()
    waiting = [
        Requirement(
            f"streamlabel[{','.join(metadata.metadata('streamlabel').get_all('Provides-Extra') or ())}]"
        )
    ]
    while waiting:
        wanted = waiting.pop()
        for line in metadata.requires(wanted.name) or ():
            needed = Requirement(line)
            extras = [{"extra": extra} for extra in wanted.extras or ("",)]
            applies = not needed.marker or any(map(needed.marker.evaluate, extras))
            name = canonicalize_name(needed.name)
            if applies and (name not in names or needed.extras):
                names.add(name)
                waiting += [needed] if _installed(needed.name) else []
    assert "torch" in names
    assert not names & {"scipy", "scikit-learn", "sentence-transformers"}


def _installed(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def test_the_lock_has_no_such_library() -> None:
    files = (ROOT / "deploy").glob("constraints*.txt")
    lock = "\n".join(file.read_text(encoding="utf-8") for file in files)
    assert not re.findall(r"^(?:scipy|scikit-learn|sentence-transformers)==", lock, re.MULTILINE)
