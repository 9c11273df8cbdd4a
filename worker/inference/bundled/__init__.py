"""The bundled model: a small sentiment model that works with no hub.

Owns: `prepare`, which makes an ordinary checkpoint folder out of an encoder and the adapter in this
package, once. Runs on: the main thread, before the worker starts. Must not import:
kafka; torch only where there is something to merge, so that a warm start costs nothing.
"""

import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from worker.errors import ModelUnavailable
from worker.inference.bundled import encoder

ADAPTER: Final = Path(__file__).with_name("adapter")

_SCRATCH: Final = ".bundled-"
_LOCK: Final = ".bundled.lock"
# Part of the cache's name: raise it when what a checkpoint folder holds changes.
_LAYOUT: Final = 1


def prepare(cache_dir: Path) -> Path:
    """Return the folder of the merged checkpoint, made on the first call.

    It loads like any other: weights, config and tokenizer. Any number of processes may call this
    at once. Raises ModelUnavailable where the encoder can't be had or is not the right one, and
    where `cache_dir` can't be written.
    """
    final = cache_dir / f"bundled-{_identity()[:12]}"
    # Only the rename below makes this folder, so one that is there is whole.
    if not final.is_dir():
        try:
            _make(final)
        except OSError as error:
            raise ModelUnavailable(
                f"the bundled model can't be prepared in {cache_dir}: {error}"
            ) from error
    return final


def _make(final: Path) -> None:
    from worker.inference.bundled.merge import write_checkpoint  # noqa: PLC0415  imports torch

    final.parent.mkdir(parents=True, exist_ok=True)
    with _alone(final.parent):
        if final.is_dir():
            return  # another process made it while this one waited
        _sweep(final.parent)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=final.parent) as scratch:
            checkpoint, fetched = Path(scratch, "checkpoint"), Path(scratch, "encoder")
            checkpoint.mkdir()
            fetched.mkdir()
            write_checkpoint(encoder.at_hand(fetched), ADAPTER, checkpoint)
            _flush(checkpoint)
            checkpoint.rename(final)


@contextmanager
def _alone(cache_dir: Path) -> Iterator[None]:
    """One process at a time. The kernel drops the lock of one that dies."""
    with (cache_dir / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(cache_dir: Path) -> None:
    """Remove what a killed process left; under the lock, no scratch folder is anyone's."""
    for leftover in cache_dir.glob(f"{_SCRATCH}*/"):
        shutil.rmtree(leftover, ignore_errors=True)


def _flush(folder: Path) -> None:
    """On disk before the rename is, or a power cut could leave the name without its content."""
    for file in folder.iterdir():
        with file.open("rb") as content:
            os.fsync(content.fileno())


def _identity() -> str:
    """A hash over everything that decides what the checkpoint holds."""
    identity = hashlib.sha256(f"{_LAYOUT} {encoder.WEIGHTS_SHA256}".encode())
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        identity.update((ADAPTER / name).read_bytes())
    return identity.hexdigest()
