"""The worker's image and the broker's, brought into the cluster."""

from __future__ import annotations

import contextlib
import json
import tarfile
import tempfile
from pathlib import Path

from tests.containers import engine
from tests.containers.build import build
from tests.kube.cluster import Cluster
from tests.kube.kafka import IMAGE as KAFKA
from tests.kube.report import Line, step
from tests.kube.verdicts import Failed

_BUILT = "streamlabel:kube"


def bring(cluster: Cluster, image: str, lines: list[Line]) -> str:
    """Load the worker's image and the broker's; return the worker's name and tag.

    Args:
        cluster: gets them.
        image: `in:TAG` if the cluster has both; an archive of `docker save` with both; a tag that
            the container engine has; empty to build one.
        lines: gets a line with the time of each step.

    Raises:
        Failed: there is no such image, it could not be built, or no engine can be had.
    """
    if image.startswith("in:"):
        return image.removeprefix("in:")
    if Path(image).is_file():
        cluster.load(Path(image))
        return worker_in(Path(image))
    try:
        return _by_engine(cluster, image, lines)
    except (engine.NoEngine, engine.Failed) as error:
        raise Failed(str(error)) from error


def _by_engine(cluster: Cluster, image: str, lines: list[Line]) -> str:
    with contextlib.ExitStack() as stack:
        with step(lines, "engine", "a container engine answers"):
            running = stack.enter_context(engine.engine())
        if not image:
            with step(lines, "image", "built"):
                build(running, _BUILT)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        with step(lines, "load", "the cluster has the images of worker and broker"):
            if not running.has(KAFKA):
                running.docker("pull", KAFKA)
            archive = Path(folder, "images.tar")
            running.docker("save", image or _BUILT, KAFKA, "--output", archive)
            cluster.load(archive)
    return image or _BUILT


def worker_in(archive: Path) -> str:
    """Return the tag of the worker's image in an archive of `docker save`."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("manifest.json")
        manifest = json.load(member) if member else []
    tags = [tag for entry in manifest for tag in entry["RepoTags"] or [] if tag != KAFKA]
    if len(tags) != 1:
        raise Failed(f"{archive} has {len(tags)} images beside {KAFKA}, not 1: {tags}")
    return str(tags[0])
