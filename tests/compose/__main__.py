"""Tests the image and docker-compose.yml, on an engine that answers or on one that is started here.

Prints each step with its time and figures. Exits with 0 only if everything held.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tests.compose.proof import Proof
from tests.compose.report import Report
from tests.compose.stack import ROOT, Stack, removed_at_the_end
from tests.containers.build import build_settings, image
from tests.containers.engine import Engine, Failed, NoEngine, engine, run

_BUILD_S: Final = 1800.0
_TESTS_S: Final = 3600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Prove it, and say whether it held."""
    parser = argparse.ArgumentParser(prog="python -m tests.compose", description=__doc__)
    parser.add_argument("--records", type=int, default=3_000, help="labelled by the first worker")
    parser.add_argument(
        "--delivery", choices=["at_least_once", "exactly_once"], default="at_least_once"
    )
    parser.add_argument("--image", help="a built image of the engine; default: build it")
    parser.add_argument("--engine", type=Path, help="folder of an engine that is started here")
    args = parser.parse_args(arguments)
    report = Report()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which removes what was started
    try:
        with engine(args.engine) as running:
            if not args.image:
                check_image(running, report)
            prove(running, report, args.records, args.image, args.delivery)
    except NoEngine as error:
        report.say(str(error))
        return 2
    except Failed as error:
        report.say(f"FAILED: {error}")
        return 1
    report.say("everything held, and nothing is left")
    return 0


def check_image(running: Engine, report: Report) -> None:
    """Run the tests of the image on this engine. Raises Failed."""
    with report.step("tests of the image") as note:
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "tests/containers"]
        said = run(command, running.environment, _TESTS_S, ROOT)
        outcome = next(line for line in said.splitlines() if " passed" in line)
        if "skipped" in outcome:
            raise Failed(said)
        note(outcome)


def prove(
    running: Engine,
    report: Report,
    records: int,
    built: str | None = None,
    delivery: str = "at_least_once",
) -> None:
    """Build the image with Compose unless it is built already, take all steps, remove everything.

    Args:
        running: the engine.
        report: takes the figures.
        records: how many are labelled before services come and go.
        built: an image of the engine.
        delivery: the setting of the workers.

    Raises:
        Failed: something does not hold; the message says what.
    """
    project = f"streamlabel-proof-{os.getpid()}"
    tag = f"streamlabel:proof-{os.getpid()}"  # of its own: another may be built again meanwhile
    chosen = {"STREAMLABEL_IMAGE": tag, "STREAMLABEL_DELIVERY": delivery}
    versions = running.docker("version", "--format", "{{.Server.Version}}")
    report.say(f"engine {versions}, Compose {running.docker('compose', 'version', '--short')}")
    with contextlib.ExitStack() as stack:
        stack.callback(_remove_image, running, tag)
        if built:
            running.docker("tag", built, tag)
        else:
            _build(running, report, project, chosen)
        services = Stack(running, project, stand_ins(running) | chosen)
        with removed_at_the_end(services, report.say):
            Proof(services, report).run(records)
        report.say("          down --volumes: no container, volume or network is left")


def _build(running: Engine, report: Report, project: str, chosen: dict[str, str]) -> None:
    with (
        report.step("docker compose build") as note,
        build_settings(running, ROOT) as (arguments, settings),
    ):
        local = {"PIP_CONF": str(settings), "BUILD_NETWORK": "host"}
        stack = Stack(running, project, arguments | local | chosen)
        stack.compose("build", "worker", timeout=_BUILD_S)
        made = image(running, chosen["STREAMLABEL_IMAGE"])
        note(f"{made.size / 1e6:,.0f} MB, {len(made.layers)} layers")


def _remove_image(running: Engine, tag: str) -> None:
    if running.has(tag):
        running.docker("image", "rm", "--force", tag)


def stand_ins(running: Engine) -> dict[str, str]:
    """Return a variable for each image of another project that the engine holds by its tag."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    pinned = re.findall(r"\$\{(\w+_IMAGE):-([^@}]+)@", text)
    return {variable: tag for variable, tag in pinned if running.has(tag)}


if __name__ == "__main__":
    sys.exit(main())
