"""Keeps converted models on disk, because a conversion takes longer than all else of a start.

A model is two files, named after a hash of all that it depends on, and a third with their hashes:
a damaged one is converted again. Only the user can read or write them.

Owns: the folder `openvino` in the cache directory.
Thread: load, before a record is read.
Must not import: torch, transformers.
"""

from __future__ import annotations

import hashlib
import json
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

    def get(self, identity: Mapping[str, Any], convert: Callable[[], Any]) -> Any:
        """Return the kept model, or convert and keep it; a disk that fails costs only time.

        Args:
            identity: all that the converted model depends on.
            convert: returns OpenVINO's model.
        """
        text = json.dumps([_LAYOUT, identity], sort_keys=True)
        name = hashlib.sha256(text.encode()).hexdigest()
        folder = self._home / name[:16]
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
