"""The Python environment of each peer: made once from exact versions, then reused.

The versions were resolved for Python 3.11.

Owns: `.cache/peers/`, which git ignores, and the reason reported for a failed installation.
Thread: main.
Must not import: kafka, torch.
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
INSTALL_TIMEOUT_S: Final = 900.0  # MLServer's runtime requires TensorFlow, which is large
_POLL_S: Final = 0.2
_GRACE_S: Final = 5.0
_MAX_CHARACTERS: Final = 200  # of a reason, which is a cell of a table
_ERROR: Final = re.compile(r"^(\w+\.)*(ERROR|\w*Error|\w*Exception)\b")
_PATH: Final = re.compile(r"(?<!\w)(?:\w+:/)?/[^\s'\"]+")


def python(folder: str) -> Path:
    """Return the interpreter of an installed peer."""
    return ENVIRONMENTS / folder / "bin" / "python"


def pins(folder: str) -> dict[str, str]:
    """Return the locked version of each package."""
    lines = (HERE / folder / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pairs = (line.partition("==") for line in lines if not line.startswith("#"))
    return {name: version for name, _, version in pairs}


def install(
    folder: str, interrupts: Interrupts, clock: Clock, timeout_s: float = INSTALL_TIMEOUT_S
) -> str | None:
    """Make the peer's environment unless it is up to date; return the reason of a failure."""
    requirements = HERE / folder / "requirements.txt"
    digest = hashlib.sha256(requirements.read_bytes()).hexdigest()
    home = ENVIRONMENTS / folder
    marker = home / "installed"
    if marker.is_file() and marker.read_text() == digest:
        return None
    deadline = clock.monotonic() + timeout_s
    pip = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--requirement")
    commands: list[Sequence[str | Path]] = [
        (sys.executable, "-m", "venv", "--clear", home),
        (python(folder), *pip, requirements),
    ]
    for command in commands:
        if failure := _run(command, interrupts, clock, deadline):
            return f"installation failed: {failure}"
    marker.write_text(digest)
    return None


def reason(output: str, index: int = -1) -> str:
    """Return one line of a failed program's output, without paths of this machine.

    Args:
        output: the program's output.
        index: of the lines with an error: the first of pip's, the last of a traceback.
    """
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if _ERROR.match(line)]
    line = errors[index] if errors else lines[-1] if lines else "no output"
    return _PATH.sub("...", line)[:_MAX_CHARACTERS]


def _run(
    command: Sequence[str | Path], interrupts: Interrupts, clock: Clock, deadline: float
) -> str | None:
    with tempfile.TemporaryFile() as output:
        process = spawn(command, output)
        try:
            while process.poll() is None:
                if clock.monotonic() > deadline:
                    return "timed out"
                interrupts.sleep(_POLL_S)
        finally:
            stop(process, _GRACE_S)
        output.seek(0)
        text = output.read().decode(errors="replace")
    return reason(text, 0) if process.returncode else None
