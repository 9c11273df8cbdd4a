"""The tree that is released: a clean copy of it, its version, and programs that run. No tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGE = "streamlabel"


class CheckFailed(Exception):
    """A check found faults; each line names one."""

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class NotPossible(Exception):
    """A check can't be made on this machine; the message says what is missing."""


@dataclass
class Release:
    """Facts and folders that the checks of one run share.

    Attributes:
        tree: a copy of the tracked files. A build in the checkout would pick up leftovers of
            earlier builds, and files that are in nobody else's checkout.
        dist: where wheel, source distribution and lists of components end up.
        scratch: an empty folder that is removed at the end.
        tag: the tag that is released, such as v0.1.0; empty for a rehearsal.
        image: the image whose components are listed; empty for `streamlabel:<version>`.
    """

    tree: Path
    dist: Path
    scratch: Path
    tag: str = ""
    image: str = ""
    project: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        text = (self.tree / "pyproject.toml").read_text(encoding="utf-8")
        self.project = tomllib.loads(text)["project"]

    @property
    def version(self) -> str:
        return str(self.project["version"])

    @property
    def wheel(self) -> Path:
        return self.dist / f"{PACKAGE}-{self.version}-py3-none-any.whl"

    @property
    def sdist(self) -> Path:
        return self.dist / f"{PACKAGE}-{self.version}.tar.gz"

    @property
    def environment(self) -> Path:
        """The virtual environment that the wheel is installed in."""
        return self.scratch / "environment"


def copy_tree(target: Path, root: Path = ROOT) -> None:
    """Copy the tracked files as they are in the checkout, changed or not."""
    listed = run(["git", "ls-files", "-z"], cwd=root)
    for name in filter(None, listed.split("\0")):
        source, copy = root / name, target / name
        if source.is_file():  # a deleted file is still listed
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, copy)


def run(command: Sequence[str | Path], *, cwd: Path, timeout: float = 1_800, **more: str) -> str:
    """Run a program without this environment's Python settings; return its standard output.

    `more` are further environment variables.

    Raises:
        CheckFailed: it ended with another exit code than 0, or not in time; with its last
            lines.
    """
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTHON", "STREAMLABEL_", "VIRTUAL_ENV", "KAFKA_", "REGISTRY_"))
    }
    words = f"`{' '.join(Path(str(word)).name for word in command[:4])} ...`"
    try:
        done = subprocess.run(
            [str(word) for word in command],
            cwd=cwd,
            env=inherited | more,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise CheckFailed(f"{words} did not end within {timeout:g} seconds") from None
    if done.returncode != 0:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-12:]
        raise CheckFailed(f"{words} ended with exit code {done.returncode}:", *last)
    return done.stdout
