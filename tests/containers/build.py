"""Builds the project's image with an engine, on a machine that need not reach a registry.

    python -m tests.containers.build --tag streamlabel:mine     builds it and prints what it is

The wheels come from this machine's pip (see `wheels`). The base image is the one that the engine
holds under the Dockerfile's tag, if there is one; otherwise the Dockerfile's own, by its digest.
"""

from __future__ import annotations

import argparse
import contextlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.containers import wheels
from tests.containers.engine import Engine, engine

ROOT: Final = Path(__file__).parents[2]

_BUILD_S: Final = 1800
# The address of the wheels is that of a proxy, because the engine keeps the layers of an earlier
# build where nothing but a proxy differs, and the port differs each time.
_INDEX: Final = "http://wheels.test/simple"
_PIP_CONF: Final = f"""[global]
index-url = {_INDEX}
trusted-host = wheels.test
no-cache-dir = true
"""


@dataclass(frozen=True)
class Image:
    """A built image.

    Attributes:
        tag: its name, with the tag.
        id: its digest, `sha256:...`.
        size: bytes, unpacked.
        layers: the digests of its layers, the base image's first.
    """

    tag: str
    id: str
    size: int
    layers: tuple[str, ...]


def image(running: Engine, tag: str) -> Image:
    """Return what the engine holds under this name. Raises Failed."""
    found = running.inspect(tag)
    return Image(tag, found["Id"], found["Size"], tuple(found["RootFS"]["Layers"]))


def build(
    running: Engine,
    tag: str,
    *,
    context: Path = ROOT,
    arguments: Mapping[str, str] | None = None,
) -> Image:
    """Build the image of a checkout.

    Args:
        running: the engine.
        tag: the name to give to the image.
        context: the checkout.
        arguments: build arguments; they take precedence over those that lead to the wheels.

    Raises:
        Failed: the build failed; the message has the end of its output.
    """
    with build_settings(running, context, arguments) as (chosen, secret):
        options = ["--network=host", f"--secret=id=pip.conf,src={secret}"]
        options += [f"--build-arg={name}={value}" for name, value in chosen.items()]
        running.docker("build", *options, "--tag", tag, context, timeout=_BUILD_S)
    return image(running, tag)


@contextlib.contextmanager
def build_settings(
    running: Engine, context: Path = ROOT, arguments: Mapping[str, str] | None = None
) -> Iterator[tuple[dict[str, str], Path]]:
    """Give the build's arguments and its secret pip.conf, while the wheels are served.

    The build must run on the host's network.

    Args:
        running: the engine.
        context: the checkout.
        arguments: further build arguments.
    """
    with (
        wheels.offered(wheels.download()) as proxy,
        tempfile.TemporaryDirectory(prefix="pip-") as scratch,
    ):
        secret = Path(scratch, "pip.conf")
        secret.write_text(_PIP_CONF, encoding="utf-8")
        chosen = {"HTTP_PROXY": proxy, "TORCH_INDEX_URL": _INDEX, **base(running, context)}
        yield chosen | dict(arguments or {}), secret


def base(running: Engine, context: Path = ROOT) -> dict[str, str]:
    """Return the build argument for a base image that the engine holds under the same tag."""
    text = (context / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"^ARG PYTHON_IMAGE=([^@\s]+)@", text, re.MULTILINE)
    return {"PYTHON_IMAGE": found[1]} if found and running.has(found[1]) else {}


def main() -> None:
    """Build and print the image."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag", default="streamlabel:local")
    parser.add_argument("--build-arg", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--engine", type=Path, help="folder of an engine that is started here")
    options = parser.parse_args()
    arguments = dict(pair.split("=", 1) for pair in options.build_arg)
    with engine(options.engine) as running:
        built = build(running, options.tag, arguments=arguments)
    print(f"{built.tag}  {built.size / 1e6:,.0f} MB  {len(built.layers)} layers  {built.id}")


if __name__ == "__main__":
    main()
