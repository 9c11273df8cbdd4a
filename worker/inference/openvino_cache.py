"""Keeps converted models on disk, because a conversion takes about as long as a model's check.

A model is a folder of two files, named after a hash of all that it depends on, and a third file
with their hashes: a damaged one is converted again. Only the user can read or write it. It replaces
others of the same weights, such as those of an earlier version of OpenVINO.

Owns: the folder `openvino` in the cache directory.
Thread: load, before a record is read.
Must not import: torch, transformers.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from worker.inference.openvino_model import openvino
from worker.logs import get_logger

_MODEL, _HASHES = "model.xml", "sha256.json"
# Part of every name: increment it when another conversion is written in this package.
_LAYOUT = 1

log = get_logger(__name__)


class ConvertedModels:
    """The converted models of a cache directory, which any number of processes may share."""

    def __init__(self, cache_dir: Path) -> None:
        self._home = cache_dir / "openvino"

    def get(self, weights: str, identity: Mapping[str, Any], convert: Callable[[], Any]) -> Any:
        """Return the kept model, or convert and keep it; a disk that fails costs only time.

        Args:
            weights: hex SHA-256 of the model's weights.
            identity: all else that the converted model depends on.
            convert: returns OpenVINO's model.
        """
        text = json.dumps([_LAYOUT, weights, identity], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()
        folder = self._home / f"{weights[:12]}-{name[:16]}"
        if folder.is_dir():
            try:
                return _read(folder)
            except (OSError, ValueError, RuntimeError) as error:
                log.warning(
                    "kept model of OpenVINO can't be used: converting it again",
                    folder=str(folder),
                    error=str(error),
                )
        model = convert()
        try:
            self._keep(model, folder)
            return _read(folder)  # mapped from the file, so that processes share its memory
        except (OSError, ValueError, RuntimeError) as error:
            log.warning(
                "converted model of OpenVINO can't be kept: each start will convert it; make room, "
                "or set model.cache_dir",
                folder=str(folder),
                error=str(error),
            )
            return model

    def _keep(self, model: Any, final: Path) -> None:
        self._home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".converted-", dir=self._home) as scratch:
            made = Path(scratch, "made")
            made.mkdir(mode=0o700)
            openvino().save_model(model, made / _MODEL, compress_to_fp16=False)
            (made / _HASHES).write_text(json.dumps(_hashes(made)), encoding="utf-8")
            if final.is_dir():  # damaged, or made by another process at the same time
                final.rename(Path(scratch, "old"))
            made.rename(final)
        weights, _ = final.name.split("-")
        for outdated in set(self._home.glob(f"{weights}-*")) - {final}:
            shutil.rmtree(outdated, ignore_errors=True)


def _read(folder: Path) -> Any:
    expected = json.loads((folder / _HASHES).read_text(encoding="utf-8"))
    if expected != _hashes(folder):
        raise ValueError("its files are damaged")
    return openvino().Core().read_model(folder / _MODEL)


def _hashes(folder: Path) -> dict[str, str]:
    """Return the hex SHA-256 of each file of a model, by name."""
    found = dict[str, str]()
    for file in sorted(folder.glob("model.*")):
        with file.open("rb") as content:
            found[file.name] = hashlib.file_digest(content, "sha256").hexdigest()
    return found
