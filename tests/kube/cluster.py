"""A cluster of one node: kubectl, helm, and programs in the cluster's network.

`$KUBERNETES_HOME/cluster` starts and ends it. Pods are reachable from within its network only, so
everything that asks a pod or a Service runs through `inside`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kube.verdicts import Failed

_POLL_S = 0.3


@dataclass(frozen=True)
class Cluster:
    """A running cluster.

    Attributes:
        folder: where its data are.
        program: the program `cluster`.
    """

    folder: Path
    program: Path

    def kubectl(self, *arguments: str, given: Any = None, timeout: float = 120) -> str:
        """Run kubectl and return its output; `given` goes to its standard input, as JSON.

        Raises:
            Failed: with what kubectl said.
        """
        stdin = None if given is None else json.dumps(given)
        return self._run([str(self.folder / "bin/kubectl"), *arguments], stdin, timeout)

    def get(self, kind: str, *arguments: str) -> dict[str, Any]:
        """Return an object, or a list of them, as kubectl gives it in JSON."""
        found: dict[str, Any] = json.loads(self.kubectl("get", kind, *arguments, "-o", "json"))
        return found

    def helm(self, *arguments: str, given: Any = None, timeout: float = 300) -> str:
        """Run Helm and return its output; `given` goes to its standard input, as JSON."""
        stdin = None if given is None else json.dumps(given)
        return self._run([str(self.folder / "bin/helm"), *arguments], stdin, timeout)

    def load(self, archive: Path) -> None:
        """Bring the images of a `docker save` archive in."""
        self._run([str(self.program), "load", str(self.folder), str(archive)], None, 300)

    def restart(self) -> None:
        """Restart the node: every process of it ends at once, as when the power goes."""
        self._run([str(self.program), "down", str(self.folder)], None, 60)
        self._run([str(self.program), "up", str(self.folder)], None, 180)

    def inside(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        """Start a Python module of this tree in the cluster's network; the caller ends it.

        It has a session of its own: Ctrl-C reaches this program alone, which ends the others.
        """
        return subprocess.Popen(
            [str(self.program), "exec", str(self.folder), sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, module: str, *arguments: str, timeout: float = 120) -> str:
        """Run a Python module in the cluster's network and return its output."""
        asked = " ".join([module, *arguments])
        with self.inside(module, *arguments) as process:
            try:
                output, error = process.communicate(timeout=timeout)
            except subprocess.TimeoutExpired as late:
                raise Failed(f"{asked}: no answer after {timeout:g} s") from late
            finally:
                end(process)
        if process.returncode:
            raise Failed(f"{asked}: {error.strip() or output.strip()}")
        return output

    def _run(self, command: Sequence[str], stdin: str | None, timeout: float) -> str:
        environ = os.environ | {"KUBECONFIG": str(self.folder / "kubeconfig")}
        try:
            done = subprocess.run(
                command,
                input=stdin,
                env=environ,
                text=True,
                capture_output=True,
                timeout=timeout,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{_shown(command)}: no answer after {timeout:g} s") from error
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip()).removeprefix("Error: ")
            raise Failed(f"{_shown(command)}: {said}")
        return done.stdout


def end(process: subprocess.Popen[str]) -> None:
    """End a program of `Cluster.inside` and what it started: it only waits for the real one."""
    with contextlib.suppress(ProcessLookupError):  # they have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait(what: str, happened: Callable[[], Any], seconds: float) -> Any:
    """Wait until `happened` returns something true, and return that.

    Raises:
        Failed: it did not happen in time; the message has the last failure on the way.
    """
    deadline = time.monotonic() + seconds
    last = ""
    while time.monotonic() < deadline:
        try:
            if found := happened():
                return found
            last = ""
        except Failed as error:  # the API server may be away, or the object not there yet
            last = f" ({error})"
        time.sleep(_POLL_S)
    raise Failed(f"{what}: not within {seconds:g} s{last}")


@contextlib.contextmanager
def started(home: Path) -> Iterator[Cluster]:
    """Start a cluster with KEDA in a new folder; end it and remove the folder afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="streamlabel-kube-"))
    program = home / "cluster"
    # A session of its own: interrupted by Ctrl-C, it would leave processes that `down` can't find.
    up = subprocess.Popen(
        [program, "up", folder, "--keda"], stdout=sys.stderr, start_new_session=True
    )
    try:
        if up.wait():
            raise Failed(f"the cluster did not start: {program} ended with {up.returncode}")
        yield Cluster(folder, program)
    finally:
        up.wait()
        subprocess.run([program, "down", folder], check=False, stdout=subprocess.DEVNULL)
        shutil.rmtree(folder, ignore_errors=True)


def _shown(command: Sequence[str]) -> str:
    return " ".join([Path(command[0]).name, *command[1:]])
