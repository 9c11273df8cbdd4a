"""The bundled model: a small sentiment model that needs no hub.

Owns: `prepare`, which builds an ordinary checkpoint folder from an encoder and the adapter in this
    package, once.
Thread: main or load, before a record is read.
Must not import: kafka; torch only to merge, so that later starts don't pay for it.
"""

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from worker.errors import ModelUnavailable
from worker.inference.bundled import encoder

ADAPTER: Final = Path(__file__).with_name("adapter")
# Where a container image has the checkpoint, read-only and made of the same sources as the code.
SHIPPED: Final = Path(sys.prefix, "share", "streamlabel", "bundled")

_SCRATCH: Final = ".bundled-"
_LOCK: Final = ".bundled.lock"
# Part of the cache's name: increment it when the content of a checkpoint folder changes.
_LAYOUT: Final = 1


def prepare(cache_dir: Path) -> Path:
    """Return the folder of the merged checkpoint: the shipped one, or what the first call builds.

    The folder has weights, config and tokenizer, and loads like any other checkpoint. Any number of
    processes may call this at once.

    Raises:
        ModelUnavailable: the encoder is not available or has other weights, or `cache_dir` can't be
            written.
    """
    if SHIPPED.is_dir():
        return SHIPPED
    final = cache_dir / f"bundled-{_identity()[:12]}"
    # Only the rename in `_make` creates this folder, so it is complete if it exists.
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
            return  # another process built it while this one waited
        _sweep(final.parent)
        with tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=final.parent) as scratch:
            checkpoint, fetched = Path(scratch, "checkpoint"), Path(scratch, "encoder")
            checkpoint.mkdir()
            fetched.mkdir()
            write_checkpoint(encoder.installed_or_fetched(fetched), ADAPTER, checkpoint)
            _flush(checkpoint)
            checkpoint.rename(final)


@contextmanager
def _alone(cache_dir: Path) -> Iterator[None]:
    """Let in one process at a time. The kernel releases the lock of a process that dies."""
    with (cache_dir / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _sweep(cache_dir: Path) -> None:
    """Remove scratch folders of killed processes; under the lock, no process uses one."""
    for leftover in cache_dir.glob(f"{_SCRATCH}*/"):
        shutil.rmtree(leftover, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Write to disk before the rename: a power cut could leave the name without its content."""
    for file in folder.iterdir():
        with file.open("rb") as content:
            os.fsync(content.fileno())


def _identity() -> str:
    """Return a hash over everything that determines the checkpoint."""
    identity = hashlib.sha256(f"{_LAYOUT} {encoder.WEIGHTS_SHA256}".encode())
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        identity.update((ADAPTER / name).read_bytes())
    return identity.hexdigest()
