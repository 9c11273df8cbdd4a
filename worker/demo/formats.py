"""The demo in JSON, and in Avro with a schema registry.

Owns: what differs between the two: the values that are sent, the workers' flags, the reading of
    results, and the registry, if one is needed.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from schemas.classification import Classification
from worker.clock import Clock
from worker.demo.registry import LocalRegistry
from worker.demo.sample import JsonSample, SampleValues
from worker.demo.view import View
from worker.errors import Fatal
from worker.processes import Interrupts
from worker.settings import read_environment


@dataclass(frozen=True)
class DemoFormat:
    """The format of one demo.

    Attributes:
        values: writes the input.
        flags: of the workers.
        read: returns the result in a value.
    """

    values: SampleValues
    flags: Mapping[str, str]
    read: Callable[[bytes], Classification]


class DemoFormats(Protocol):
    """Prepares a format; `external` is True if its registry is not the demo's own."""

    @property
    def external(self) -> bool: ...
    def format(self, input_topic: str, output_topic: str) -> DemoFormat: ...


class JsonDemo:
    """Needs nothing."""

    external = False

    def format(self, input_topic: str, output_topic: str) -> DemoFormat:  # noqa: ARG002
        """Return the format."""
        return DemoFormat(JsonSample(), {}, Classification.model_validate_json)


class AvroDemo:
    """A registry for a demo in Avro: a running one, or one that the demo starts.

    Args:
        url: of a running registry; None starts the one in REGISTRY_HOME.

    Raises Fatal if anything that Avro needs is missing, and names it.
    """

    def __init__(
        self, url: str | None, stack: ExitStack, interrupts: Interrupts, clock: Clock, view: View
    ) -> None:
        self._stack, self._interrupts, self._clock, self._view = stack, interrupts, clock, view
        self._url = url
        self._own: LocalRegistry | None = None
        if importlib.util.find_spec("fastavro") is None:
            raise Fatal("--format avro needs fastavro: pip install 'streamlabel[registry]'")
        home = read_environment("REGISTRY_HOME")
        if url is None and not home:
            raise Fatal(
                "--format avro needs a schema registry: set REGISTRY_HOME to the folder of an "
                "unpacked one (with Java on PATH), or give --registry-url"
            )
        view.say(f"using the registry at {url}" if url else "starting a schema registry")
        if url is None:
            self._own = stack.enter_context(LocalRegistry(Path(home or ""), clock))
            interrupts.on_second(self._own.kill)

    @property
    def external(self) -> bool:
        """True if the registry is not the demo's own."""
        return self._own is None

    def format(self, input_topic: str, output_topic: str) -> DemoFormat:
        """Wait until the registry answers, and register the schemas of the input."""
        from worker.demo.avro_sample import AvroSample
        from worker.registry.samples import SampleRegistry

        url = self._url or self._started()
        registry = self._stack.enter_context(SampleRegistry(url, keep=not self.external))
        registry.subjects.add(f"{output_topic}-value")
        flags = {"--input-format": "avro", "--output-format": "avro", "--registry-url": url}
        return DemoFormat(
            AvroSample(registry, input_topic),
            flags,
            lambda value: Classification.model_validate(registry.read(value)),
        )

    def _started(self) -> str:
        began = self._clock.monotonic()
        while (url := self._own.url if self._own else None) is None:
            self._view.wait("starting the schema registry", self._clock.monotonic() - began)
            self._interrupts.sleep(0.1)
        return url
