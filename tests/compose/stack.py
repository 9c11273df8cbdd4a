"""One Compose project: starts, scales, breaks and asks its services."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from tests.containers.engine import Engine, Failed, run
from worker.clock import SystemClock
from worker.errors import BrokerAway

ROOT: Final = Path(__file__).parents[2]
# Grafana has no stand-in, so the services are named.
SERVICES: Final = ("kafka", "worker", "prometheus")

_KINDS: Final = {
    "container": ("ps", "--all"),
    "volume": ("volume", "ls"),
    "network": ("network", "ls"),
}
_PASSED: Final = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG")
_STEP_S: Final = 0.25
_COMMAND_S: Final = 600.0
_ANSWER_S: Final = 20.0


class Stack:
    """The services of one project, by the checkout's docker-compose.yml.

    Args:
        engine: runs the containers.
        project: its name; no other project may have it.
        variables: those of the Compose file. No other variable of this process, and no file .env,
            reaches Compose.
    """

    def __init__(
        self,
        engine: Engine,
        project: str,
        variables: Mapping[str, str],
    ) -> None:
        self.engine, self.project = engine, project
        passed = {name: engine.environment[name] for name in _PASSED if name in engine.environment}
        self._environment = passed | dict(variables)
        named = ["--env-file", os.devnull, "--project-name", project]
        self._prefix = ["docker", "compose", "--ansi=never", *named]

    def compose(self, *arguments: str, timeout: float = _COMMAND_S) -> str:
        """Run `docker compose` and return its output. Raises Failed."""
        return run([*self._prefix, *arguments], self._environment, timeout, ROOT)

    def up(self, workers: int = 1) -> None:
        """Start, or scale, and wait until every service is healthy. Raises Failed."""
        self.compose("up", "--wait", "--no-build", "--scale", f"worker={workers}", *SERVICES)

    def down(self) -> None:
        """Remove everything. Raises Failed if something is left."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "45")
        if left := self.leftovers():
            raise Failed(f"`down --volumes` left {', '.join(left)}")

    def leftovers(self) -> list[str]:
        """Return the project's containers, volumes and networks that exist."""
        mine = f"label=com.docker.compose.project={self.project}"
        return [
            f"{kind} {name}"
            for kind, command in _KINDS.items()
            for name in self.engine.docker(*command, "--quiet", "--filter", mine).split()
        ]

    def containers(self, service: str) -> list[str]:
        """Return the names of a service's containers that run."""
        lines = self.compose("ps", "--format", "json", service).splitlines()
        return sorted(json.loads(line)["Name"] for line in lines)

    def logs(self, *services: str, tail: int | None = None) -> str:
        """Return the log of services, or its last lines."""
        last = [] if tail is None else [f"--tail={tail}"]
        said = self.compose("logs", "--no-log-prefix", "--no-color", *last, *services)
        return said.replace("\x1b[2K", "")  # "erase the line", which Compose 2.26 writes anyway

    def state(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container's process and health."""
        found = self.engine.inspect(container)
        return dict(found["State"]) | {"RestartCount": found["RestartCount"]}

    def healthy(self, container: str) -> bool:
        """Return whether the health check of a running container succeeded last."""
        state = self.state(container)
        return bool(state["Running"] and state["Health"]["Status"] == "healthy")

    def crash(self, container: str) -> None:
        """Kill the container's process, so that its restart policy applies.

        `docker kill` would count as a stop on purpose. The engine must run on this machine.
        """
        os.kill(self.state(container)["Pid"], signal.SIGKILL)

    def address(self, container: str, port: int) -> str:
        """Return `127.0.0.1:PORT`, where a container's port is published."""
        return self.engine.docker("port", container, f"{port}/tcp").splitlines()[0]

    def fetch(self, container: str, port: int, path: str) -> str:
        """Return what a service answers at its published port. Raises OSError."""
        url = f"http://{self.address(container, port)}{path}"
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(
            url, timeout=_ANSWER_S
        ) as answer:
            return str(answer.read().decode())

    def inside(self, container: str, *command: str) -> str:
        """Run a command in a container and return its output. Raises Failed."""
        return self.engine.docker("exec", container, *command)


@contextlib.contextmanager
def removed_at_the_end(stack: Stack, say: Callable[[str], None]) -> Iterator[None]:
    """Remove the project at the end; after a failure, print the end of its logs first."""
    try:
        yield
    except BaseException:
        say(stack.compose("ps", "--all"))
        say(stack.logs("worker", "kafka", tail=20))
        raise
    finally:
        stack.down()


def until(condition: Callable[[], bool], what: str, seconds: float) -> None:
    """Wait for a condition; a service that is away counts as "not yet". Raises Failed."""
    clock = SystemClock()
    deadline = clock.monotonic() + seconds
    while clock.monotonic() < deadline:
        with contextlib.suppress(OSError, BrokerAway):
            if condition():
                return
        clock.sleep(_STEP_S)
    raise Failed(f"not within {seconds:g} s: {what}")
