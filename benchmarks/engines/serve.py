"""The contender's side: loads an engine and answers one message after another.

    python -m benchmarks.engines.serve --module ours --socket PATH

A message and its answer are a line of JSON each. The other engines' environments have no package
of this project, so that this module needs the standard library alone.

Owns: the measurement of a turn, in seconds and CPU seconds of this process.
Thread: main.
Must not import: kafka, and torch only through the engine's own module.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from worker.clock import Clock, SystemClock

_RESULT_DIGITS: Final = 7  # float32 has no more
Rows = Sequence[Sequence[float]]


class Engine(Protocol):
    """A loaded engine.

    Attributes:
        runs_as: the number type and the way that it really computes in.
        versions: of its packages.
    """

    runs_as: str
    versions: str

    def label(self, texts: Sequence[str]) -> Rows:
        """Return the probabilities [texts, labels] of a window of texts."""
        ...

    def alone(self, text: str) -> object:
        """Label one text, in the way that is fastest for one."""
        ...


class Server:
    """Answers messages with the figures of one engine.

    Args:
        load: returns the engine, given the options of the message `load`.
        clock: for the measurement.
    """

    def __init__(self, load: Callable[[dict[str, Any]], Engine], clock: Clock) -> None:
        self._load, self._clock = load, clock
        self._engine: Engine | None = None

    def answer(self, message: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a message; a failure is an answer with `error`."""
        try:
            return self._answer(message)
        except Exception as error:  # noqa: BLE001 - the parent reports it in the results
            return {"error": f"{type(error).__name__}: {error}"}

    def _answer(self, message: dict[str, Any]) -> dict[str, Any]:
        kind = message["do"]
        if kind == "load":
            self._engine = self._load(message["options"])
        if self._engine is None:
            raise RuntimeError(f"asked to {kind} before it has loaded")
        if kind == "label":
            return self._label(self._engine, message["texts"], message["window"])
        if kind == "alone":
            return self._alone(self._engine, message["texts"], message["gap_s"])
        return {"runs_as": self._engine.runs_as, "versions": self._engine.versions}

    def _label(self, engine: Engine, texts: list[str], window: int) -> dict[str, Any]:
        """Label the texts window by window: one ends before the next begins."""
        started, cpu = self._clock.monotonic(), _cpu_s()
        rows = [
            row
            for start in range(0, len(texts), window)
            for row in engine.label(texts[start : start + window])
        ]
        seconds, cpu = self._clock.monotonic() - started, _cpu_s() - cpu
        rounded = [[round(float(value), _RESULT_DIGITS) for value in row] for row in rows]
        return {"seconds": seconds, "cpu_s": cpu, "probabilities": rounded}

    def _alone(self, engine: Engine, texts: list[str], gap_s: float) -> dict[str, Any]:
        seconds = []
        for text in texts:
            self._clock.sleep(gap_s)
            started = self._clock.monotonic()
            engine.alone(text)
            seconds.append(self._clock.monotonic() - started)
        return {"seconds": seconds}


def _cpu_s() -> float:
    """Return the CPU seconds of all threads of this process."""
    times = os.times()
    return times.user + times.system


def main() -> None:
    """Connect to the parent and answer until it closes the connection."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--module", required=True, help="of this package, with a function `load`")
    parser.add_argument("--socket", required=True, help="path of the parent's Unix socket")
    args = parser.parse_args()
    module = importlib.import_module(f"benchmarks.engines.{args.module}")
    server = Server(module.load, SystemClock())
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(args.socket)
        with connection.makefile("rw", encoding="utf-8") as lines:
            for line in lines:
                lines.write(json.dumps(server.answer(json.loads(line))) + "\n")
                lines.flush()


if __name__ == "__main__":
    main()
