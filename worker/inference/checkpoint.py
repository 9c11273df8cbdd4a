"""Resolves `--model` to a local folder, and checks its files.

Owns: the source of a model (directory, hub, bundled), the choice of its files, the hash of its
    weights, and all checks that need no torch.
Thread: load, before a record is read.
Must not import: torch, transformers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from worker.core.visible import excerpt
from worker.errors import ModelUnavailable, SettingsError
from worker.inference import bundled
from worker.logs import get_logger
from worker.settings import ModelSettings

BUNDLED = "bundled"
LOCAL = "local"

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_ADAPTER = "adapter_config.json"
_JSON_BYTES = 64 * 2**20
_FILE_NAME = 255  # characters; the limit of common file systems
# Each of these files holds a vocabulary.
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "bpe.codes", "*.model")
_HUB_FILES = (
    *("config.json", _WEIGHTS, _INDEX, "model-*-of-*.safetensors"),
    *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt"),
    *("entity_vocab.json", "word_shape.json", "word_pronunciation.json", _ADAPTER),
    *VOCABULARIES,
)
_PICKLES = ("pytorch_model*.bin", "*.pt", "*.pth")
_OTHERWISE = "set model.name (--model) to a local directory, or to `bundled`"
_HUB_UNAVAILABLE = "{name} can't be downloaded from the hub ({error}): try again later, {otherwise}"
# The first match is reported; GatedRepoError is a subclass of RepositoryNotFoundError.
_HUB_ERRORS: dict[type[Exception], str] = {
    GatedRepoError: "{name} is gated: accept its terms on its page of the hub, then log in with "
    "`hf auth login` or set HF_TOKEN",
    RepositoryNotFoundError: "there is no model {name} on the hub, and no directory of that name; if "
    "the model is private, log in with `hf auth login` or set HF_TOKEN",
    RevisionNotFoundError: "{name} on the hub has no revision {revision!r}: see the list on its page",
    HFValidationError: "{name} is neither a directory nor a hub id (`owner/name`)",
    LocalEntryNotFoundError: "{name} is not in the hub's cache ({cache}), and the hub {away}, "
    "{otherwise}",
}
_OFFLINE = "is not asked, because HF_HUB_OFFLINE is set: run `streamlabel model fetch` without it"
_ANSWERED = (
    "at {endpoint} answered with HTTP status {status}: try again later, check the proxy (HTTPS_PROXY, "
    "NO_PROXY), HF_ENDPOINT (the address of a mirror) and HF_TOKEN"
)
_UNREACHABLE = (
    "at {endpoint} can't be reached: check the network, the proxy (HTTPS_PROXY, NO_PROXY) and "
    "HF_ENDPOINT (the address of a mirror)"
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A folder with config, tokenizer and safetensors weights, all present.

    Attributes:
        name: as given by the user; for a directory, its base name.
        revision: the hub's commit, or `local`.
        config: content of config.json.
        weights: the safetensors files, sorted by name.
    """

    folder: Path
    name: str
    revision: str
    config: dict[str, Any]
    weights: tuple[Path, ...]

    @property
    def has_vocabulary(self) -> bool:
        """True if the folder has a file of the tokenizer's vocabulary."""
        return any(_present(self.folder, VOCABULARIES))

    @property
    def size(self) -> int:
        """Bytes of all files in the folder that a worker may read; a link counts as its file."""
        files = {file for pattern in _HUB_FILES for file in self.folder.glob(pattern)}
        return sum(file.stat().st_size for file in files)

    def weights_sha256(self) -> str:
        """Return the hex SHA-256 of the file, or of one line `name sha256` for each shard."""
        hashes = [_sha256_of(file) for file in self.weights]
        if len(hashes) == 1:
            return hashes[0]
        pairs = zip(self.weights, hashes, strict=True)
        lines = "".join(f"{file.name} {digest}\n" for file, digest in pairs)
        return hashlib.sha256(lines.encode()).hexdigest()


def resolve(settings: ModelSettings) -> Checkpoint:
    """Find the model, download it if it is on the hub, and check that it has all files.

    Raises:
        ModelUnavailable: there is no such model, or it can't be used; the message says what to do.
        SettingsError: a revision is set for a model that is not on the hub.
    """
    folder, name, revision = _locate(settings)
    if not (folder / "config.json").is_file():
        raise ModelUnavailable(f"{name} has no config.json: {_without_config(folder)}")
    config = _json(folder / "config.json")
    checkpoint = Checkpoint(folder, name, revision, config, tuple(_weights(folder, name)))
    if (folder / _ADAPTER).is_file():
        get_logger(__name__).warning(
            "adapter in the model's folder is not applied: merge it into the model and save the "
            "result, or remove its files",
            file=_ADAPTER,
            model=name,
        )
    return checkpoint


def _locate(settings: ModelSettings) -> tuple[Path, str, str]:
    """Return folder, name and revision of the model."""
    name, path = settings.name, Path(settings.name).expanduser()
    is_bundled = name == BUNDLED
    if settings.revision and (is_bundled or path.is_dir()):
        raise SettingsError(
            f"model.revision = {settings.revision!r} does not apply to {name}: only models on the "
            "hub have revisions"
        )
    if is_bundled:
        return bundled.prepare(settings.cache_dir.expanduser()), BUNDLED, LOCAL
    if path.is_dir():
        # Python decodes a file name that is not UTF-8 with lone surrogates.
        return path, path.resolve().name.encode("utf-8", "replace").decode(), LOCAL
    if path.is_file():
        raise ModelUnavailable(f"{name} is a file: set model.name (--model) to its directory")
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelUnavailable(
            f"there is no directory {name}: set model.name (--model) to one, or to a hub id "
            "(`owner/name`)"
        )
    folder = _from_hub(name, settings.revision)
    return folder, name, folder.name


def _from_hub(name: str, revision: str | None) -> Path:
    """Return the snapshot's folder, named after the commit; offline, from the hub's cache."""
    get_logger(__name__).debug("downloading model", model=name, revision=revision)
    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(_HUB_FILES)))
    except Exception as error:
        raise ModelUnavailable(_hub_error(error, name, revision)) from error


def _hub_error(error: Exception, name: str, revision: str | None) -> str:
    templates = (text for kind, text in _HUB_ERRORS.items() if isinstance(error, kind))
    template = next(templates, _HUB_UNAVAILABLE)
    away = _OFFLINE
    if not constants.HF_HUB_OFFLINE:
        status = _status(error)
        away = _ANSWERED if status else _UNREACHABLE
        away = away.format(endpoint=_endpoint(), status=status)
    return template.format(
        name=name,
        revision=revision,
        error=_first_line(error),
        cache=constants.HF_HUB_CACHE,
        away=away,
        otherwise=_OTHERWISE,
    )


def _status(error: BaseException | None) -> int | None:
    """Return the HTTP status that led to an error; None if there was no answer."""
    while error is not None:
        if (response := getattr(error, "response", None)) is not None:
            status: int = response.status_code
            return status
        error = error.__cause__
    return None


def _endpoint() -> str:
    """Return the hub's address, without the user and password that one may have."""
    address = urlsplit(constants.ENDPOINT)
    return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def _weights(folder: Path, name: str) -> Iterator[Path]:
    if (folder / _WEIGHTS).is_file():
        yield folder / _WEIGHTS
    elif (folder / _INDEX).is_file():
        shards = _json(folder / _INDEX).get("weight_map")
        if not isinstance(shards, dict) or not shards:
            raise ModelUnavailable(f"{name} can't be used: {_INDEX} names no file")
        # An index is untrusted: it must not name a file outside of the folder, or a pickle.
        for shard in shards.values():
            if not _is_shard(shard):
                shown = excerpt(repr(shard), _FILE_NAME)
                raise ModelUnavailable(
                    f"{name} can't be used: {_INDEX} names {shown}, which is not a .safetensors file "
                    "in its folder: download it again"
                )
        for shard in sorted(set(shards.values())):
            if not (folder / shard).is_file():
                raise ModelUnavailable(
                    f"{name} is incomplete: {shard} is missing; download it again"
                )
            yield folder / shard
    else:
        pickles = ", ".join(file.name for file in _present(folder, _PICKLES)) or "if any"
        raise ModelUnavailable(
            f"{name} has no {_WEIGHTS}; pickled weights ({pickles}) can run code when they are "
            "opened, and are never loaded: convert them to safetensors (model.save_pretrained(...) "
            "of a current transformers does)"
        )


def _is_shard(name: Any) -> bool:
    if not isinstance(name, str) or not name.isascii() or not name.isprintable():
        return False
    return Path(name).name == name and len(name) <= _FILE_NAME and name.endswith(".safetensors")


def _without_config(folder: Path) -> str:
    if (folder / _ADAPTER).is_file():
        return "it is only an adapter; merge it into its base model and save the result"
    return "set model.name (--model) to the directory that save_pretrained(...) wrote"


def _present(folder: Path, patterns: tuple[str, ...]) -> Iterator[Path]:
    for pattern in patterns:
        yield from sorted(folder.glob(pattern))


def _json(file: Path) -> dict[str, Any]:
    try:
        if (size := file.stat().st_size) > _JSON_BYTES:
            raise ModelUnavailable(f"{file} has {size:,} bytes (limit {_JSON_BYTES:,})")
        content = json.loads(file.read_text(encoding="utf-8"))
    except RecursionError:
        raise ModelUnavailable(
            f"{file} can't be read: it is nested too deeply; download or save it again"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelUnavailable(f"{file} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise ModelUnavailable(f"{file} can't be used: it is not a JSON object")
    return content


def _sha256_of(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
