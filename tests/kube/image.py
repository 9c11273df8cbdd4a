"""The worker's image and the broker's, brought into the cluster."""

from __future__ import annotations

import json
import subprocess
import tarfile
import tempfile
from pathlib import Path

from tests.kube.cluster import Cluster
from tests.kube.kafka import IMAGE as KAFKA
from tests.kube.verdicts import Failed


def bring(cluster: Cluster, image: str) -> str:
    """Load an image and the broker's; return the worker's name and tag.

    Args:
        cluster: gets them.
        image: a tag that the container engine has, or an archive of `docker save` with both.
    """
    archive = Path(image)
    if archive.is_file():
        cluster.load(archive)
        return worker_in(archive)
    with tempfile.NamedTemporaryFile(suffix=".tar") as file:
        _docker("save", image, KAFKA, "-o", file.name)
        cluster.load(Path(file.name))
    return image


def worker_in(archive: Path) -> str:
    """Return the tag of the worker's image in an archive of `docker save`."""
    with tarfile.open(archive) as tar:
        member = tar.extractfile("manifest.json")
        manifest = json.load(member) if member else []
    tags = [tag for entry in manifest for tag in entry["RepoTags"] or [] if tag != KAFKA]
    if len(tags) != 1:
        raise Failed(f"{archive} has {len(tags)} images beside {KAFKA}, not 1: {tags}")
    return str(tags[0])


def _docker(*arguments: str) -> None:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failed(f"docker {' '.join(arguments)}: {done.stderr.strip()}")
