"""Each peer's own Python environment: made once, from exact versions, and used again.

Owns `.cache/peers/`, which git ignores, and the words for a peer that can't be installed. The
versions were resolved for Python 3.11. Must not import: kafka, torch.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from worker.clock import Clock
from worker.processes import Interrupts, spawn, stop

HERE: Final = Path(__file__).parent
ENVIRONMENTS: Final = HERE.parents[1] / ".cache" / "peers"
PATIENCE_S: Final = 900.0  # TensorFlow, which MLServer's runtime asks for, is large
_LOOK_S: Final = 0.2
_GRACE_S: Final = 5.0
_LONGEST: Final = 200  # characters of a reason: it stands in a table
_ERROR: Final = re.compile(r"^(\w+\.)*(ERROR|\w*Error|\w*Exception)\b")
_PLACE: Final = re.compile(r"(?<!\w)(?:\w+:/)?/[^\s'\"]+")


def python(folder: str) -> Path:
    """The interpreter of a peer that has been installed."""
    return ENVIRONMENTS / folder / "bin" / "python"


def pins(folder: str) -> dict[str, str]:
    """Package -> the version that the peer runs on."""
    lines = (HERE / folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    found = (line.partition("==") for line in lines if not line.startswith("#"))
    return {name: version for name, _, version in found}


def install(
    folder: str, interrupts: Interrupts, clock: Clock, patience_s: float = PATIENCE_S
) -> str | None:
    """Make the peer's environment unless it is there; returns why that failed."""
    requirements = HERE / folder / "requirements.txt"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    home = ENVIRONMENTS / folder
    mark = home / "installed"
    if mark.is_file() and mark.read_text() == wanted:
        return None
    deadline = clock.monotonic() + patience_s
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement")
    commands: list[Sequence[str | Path]] = [
        (sys.executable, "-m", "venv", "--clear", home),
        (python(folder), *pip, requirements),
    ]
    for command in commands:
        if why := _run(command, interrupts, clock, deadline):
            return f"would not install: {why}"
    mark.write_text(wanted)
    return None


def reason(told: str, which: int = -1) -> str:
    """One line out of what a program wrote before it failed, fit to be published.

    Args:
        told: what it wrote.
        which: of the lines that name an error: pip says first what is wrong, and a traceback last.
    """
    lines = [line.strip() for line in told.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    line = errors[which] if errors else lines[-1] if lines else "it said nothing"
    return _PLACE.sub("...", line)[:_LONGEST]


def _run(
    command: Sequence[str | Path], interrupts: Interrupts, clock: Clock, deadline: float
) -> str | None:
    with tempfile.TemporaryFile() as output:
        process = spawn(command, output)
        try:
            while process.poll() is None:
                if clock.monotonic() > deadline:
                    return "it took too long"
                interrupts.sleep(_LOOK_S)
        finally:
            stop(process, _GRACE_S)
        output.seek(0)
        told = output.read().decode(errors="replace")
    return reason(told, 0) if process.returncode else None
