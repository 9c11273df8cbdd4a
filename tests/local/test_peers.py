"""Peers stand in their own folders with exact versions; one that won't install says why."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks.peers import run as peers

FOLDERS = sorted({one.folder for one in peers.contenders() if one.folder})


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_peer_has_a_program_and_exact_versions(folder: str) -> None:
    """A range of versions would measure something else next year."""
    lines = (peers.HERE / folder / "requirements.txt").read_text().splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    assert pins
    assert all(re.fullmatch(r"[\w.\-\[\],]+==[\w.\-]+", pin) for pin in pins)
    assert (peers.HERE / folder / "app.py").is_file()


def test_a_peer_that_won_t_install_is_reported_with_the_last_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is tried again the next time."""

    def pip_fails(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        failed = "install" in command
        return subprocess.CompletedProcess(command, failed, "", "much\nERROR: no such version\n\n")

    monkeypatch.setattr(peers, "ENVIRONMENTS", tmp_path)
    monkeypatch.setattr(subprocess, "run", pip_fails)
    assert peers._install("plain") == "would not install: ERROR: no such version"
    assert not (tmp_path / "plain" / "installed").exists()
    (contender,) = [one for one in peers.contenders() if one.folder == "mlserver"]
    contender.failed = "would not install: ERROR: no such version"
    assert contender.row.records_per_s is None
