"""A container engine: the one that answers, or one that is started and ended here.

`answering` finds the engine that DOCKER_HOST or the default socket names. `engine` starts one where
none answers: `$CONTAINERS_HOME/engine up FOLDER`, which needs root, Debian bookworm and an x86-64
processor.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

_UP_S: Final = 900  # the packages come over the network
_ANSWER_S: Final = 20
_PASSED: Final = ("PATH", "DOCKER_HOST", "DOCKER_CONFIG")


class NoEngine(Exception):
    """No engine answers, and none can be started. The message is a reason to skip a test."""


class Failed(Exception):
    """A program failed. The message has its command and the end of its output."""


@dataclass(frozen=True)
class Engine:
    """An engine that answers.

    Attributes:
        environment: of this process, with the PATH, DOCKER_HOST and DOCKER_CONFIG that reach it.
    """

    environment: Mapping[str, str]

    def docker(self, *arguments: str | Path, timeout: float = 300.0) -> str:
        """Run `docker` and return what it printed, without the last line's end.

        Raises:
            Failed: it ended with an error.
        """
        return run(["docker", *map(str, arguments)], self.environment, timeout)

    def inspect(self, name: str) -> dict[str, Any]:
        """Return what the engine knows of a container or an image. Raises Failed."""
        (found,) = json.loads(self.docker("inspect", name))
        return dict(found)

    def has(self, image: str) -> bool:
        """Return whether the engine holds this image, without asking a registry."""
        try:
            self.docker("image", "inspect", image)
        except Failed:
            return False
        return True


def run(
    command: list[str], environment: Mapping[str, str], timeout: float, folder: Path | None = None
) -> str:
    """Run a program to its end and return its standard output, stripped. Raises Failed."""
    done = subprocess.run(
        command,
        env=environment,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}".strip()[-4000:]
        raise Failed(f"{' '.join(command)} ended with {done.returncode}:\n{said}")
    return done.stdout.strip()


def answering(environment: Mapping[str, str] | None = None) -> Engine:
    """Return the engine that answers. Raises NoEngine with the reason if there is none.

    Args:
        environment: says where the engine is; this process's own by default.
    """
    found = Engine(dict(os.environ if environment is None else environment))
    if not shutil.which("docker", path=found.environment.get("PATH")):
        raise NoEngine("no container engine answers: docker is not installed")
    try:
        found.docker("info", "--format", "{{.ServerVersion}}", timeout=_ANSWER_S)
        found.docker("buildx", "version", timeout=_ANSWER_S)
    except (Failed, subprocess.TimeoutExpired) as error:
        last = str(error).splitlines()[-1]
        raise NoEngine(f"no container engine answers: {last}") from error
    return found


@contextlib.contextmanager
def engine(folder: Path | None = None) -> Iterator[Engine]:
    """Give the engine that answers, or start one and end it.

    Args:
        folder: for the engine that is started here: what it unpacks stays there for the next run.
            Without it, a temporary folder is used and removed.

    Raises:
        NoEngine: none answers, and none can be started here.
        Failed: the engine did not start.
    """
    try:
        found = answering()
    except NoEngine as error:
        program = _program(error)
    else:
        yield found
        return
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="engine-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        stack.callback(_end, program, folder)
        run([str(program), "up", str(folder)], os.environ, _UP_S)
        yield answering(_environment(folder))


def _program(nothing: NoEngine) -> Path:
    """Return the program that starts an engine. Raises NoEngine if it can't run here."""
    home = os.environ.get("CONTAINERS_HOME", "")
    reasons = {
        "CONTAINERS_HOME names no folder with the program `engine`": not home
        or not os.access(Path(home, "engine"), os.X_OK),
        "only root can start one": os.geteuid() != 0,
        "one can be started only on Debian bookworm": "bookworm" not in _release(),
        "one can be started only on x86-64": platform.machine() != "x86_64",
    }
    if missing := [reason for reason, holds in reasons.items() if holds]:
        raise NoEngine(f"{nothing}; {'; '.join(missing)}") from nothing
    return Path(home, "engine")


def _release() -> str:
    try:
        return platform.freedesktop_os_release().get("VERSION_CODENAME", "")
    except OSError:
        return ""


def _environment(folder: Path) -> dict[str, str]:
    """Return this process's environment with what the engine's file `env` sets."""
    shown = ";".join(f'printf "%s\\0" "${name}"' for name in _PASSED)
    values = run(["bash", "-c", f'. "$0"; {shown}', str(folder / "env")], os.environ, _ANSWER_S)
    return dict(os.environ) | dict(zip(_PASSED, values.split("\0"), strict=False))


def _end(program: Path, folder: Path) -> None:
    run([str(program), "down", str(folder)], os.environ, _ANSWER_S)
