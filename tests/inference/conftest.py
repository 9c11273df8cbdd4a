"""Fixtures of the tests of inference: no network, and models that are made once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from tests.support.models import Architecture, make_checkpoint


@pytest.fixture(autouse=True)
def only_torch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide OpenVINO, so that `auto` takes the same engine in each run; its own tests see it."""
    if request.node.module.__name__.rpartition(".")[2] != "test_openvino":
        monkeypatch.setattr("worker.inference.openvino_pass.installed", lambda: False)


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Set the hub's library to its offline mode, and return its empty cache."""
    cache = tmp_path / "hub-cache"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Architecture], Path]:
    """Return the folder of a tiny model by architecture; shared, so tests must not change it."""
    home = tmp_path_factory.mktemp("models")

    def made(architecture: Architecture) -> Path:
        folder = home / architecture
        return folder if folder.is_dir() else make_checkpoint(folder, architecture=architecture)

    return made
