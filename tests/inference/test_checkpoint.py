"""Checkpoints: the sources of a model, its files, and every rejection before a record is read."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from tests.support.models import Architecture, edit_json
from worker.errors import ModelUnavailable, SettingsError
from worker.inference import bundled
from worker.inference import checkpoint as checkpoints
from worker.inference.checkpoint import resolve
from worker.inference.loading import load
from worker.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("offline")

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def settings_for(name: Path | str, **more: Any) -> ModelSettings:
    return ModelSettings(name=str(name), **more)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def folder(tmp_path: Path, checkpoint: Callable[[Architecture], Path]) -> Path:
    """Return the folder of a checkpoint that the test may damage."""
    return Path(shutil.copytree(checkpoint("distilbert"), tmp_path / "my-model"))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def shard(folder: Path) -> dict[str, Path]:
    """Split the weights into two files and an index, like those of large models."""
    weights = load_file(folder / "model.safetensors")
    names = sorted(weights)
    files = {n: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, n in enumerate(names)}
    for file in set(files.values()):
        save_file({n: weights[n] for n in names if files[n] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    (folder / "model.safetensors").unlink()
    return {file: folder / file for file in sorted(set(files.values()))}


def hub_cache(cache: Path, source: Path, owner_and_name: str) -> None:
    """Create the cache of the hub's library after the download of a model's main branch."""
    home = cache / f"models--{owner_and_name.replace('/', '--')}"
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    shutil.copytree(source, home / "snapshots" / COMMIT)


class TestResolved:
    def test_a_directory(self, folder: Path) -> None:
        resolved = resolve(settings_for(folder))
        assert (resolved.name, resolved.revision) == ("my-model", "local")
        content = (folder / "model.safetensors").read_bytes()
        assert resolved.weights_sha256() == sha256_of(content)

    def test_a_relative_directory(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(folder)
        assert resolve(settings_for(".")).name == "my-model"

    def test_sharded_weights(self, folder: Path) -> None:
        """The hash covers the sorted lines `name sha256`, and the model is the same."""
        before, _ = load(settings_for(folder), 4096), load_file(folder / "model.safetensors")
        files = shard(folder)
        lines = "".join(f"{name} {sha256_of(f.read_bytes())}\n" for name, f in files.items())
        tokeniser, classifier = load(settings_for(folder), 4096)
        assert classifier.card.weights_sha256 == sha256_of(lines.encode())
        (texts,) = tokeniser.tokenise(["the same"])
        assert classifier.predict(texts) == before[1].predict(texts)

    def test_a_cached_model_of_the_hub(self, folder: Path, offline: Path) -> None:
        hub_cache(offline, folder, "someone/tiny")
        _, classifier = load(settings_for("someone/tiny"), 4096)
        assert (classifier.card.name, classifier.card.revision) == ("someone/tiny", COMMIT)

    def test_only_the_needed_files_are_downloaded(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        requested: dict[str, Any] = {}

        def fetch(name: str, **options: Any) -> str:
            requested.update(options, name=name)
            return str(folder)

        monkeypatch.setattr(checkpoints, "snapshot_download", fetch)
        resolve(settings_for("someone/tiny", revision="v1"))
        assert (requested["name"], requested["revision"]) == ("someone/tiny", "v1")
        wanted = [
            "config.json",
            "model.safetensors",
            "vocab.txt",
            "model-00001-of-00002.safetensors",
        ]
        other = ["pytorch_model.bin", "model.fp16.safetensors", "onnx/model.safetensors", "run.py"]
        kept = huggingface_hub.utils.filter_repo_objects(
            wanted + other, allow_patterns=requested["allow_patterns"]
        )
        assert list(kept) == wanted

    def test_the_bundled_model(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        requested: list[Path] = []
        monkeypatch.setattr(bundled, "prepare", lambda cache: requested.append(cache) or folder)
        resolved = resolve(settings_for("bundled", cache_dir=tmp_path / "cache"))
        assert (resolved.name, resolved.revision, resolved.folder) == ("bundled", "local", folder)
        assert requested == [tmp_path / "cache"]

    def test_a_directory_needs_no_network(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any) -> None:
            pytest.fail("the network was used")

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(socket.socket, "connect", refuse)
        monkeypatch.setattr(socket, "getaddrinfo", refuse)
        load(settings_for(folder), 4096)

    def test_loading_is_silent(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        """No progress bars and no advice of the libraries; an error includes their report."""
        with capture_logs():  # our own lines; the libraries print theirs
            load(settings_for(folder), 4096)
        change_weights(folder, lambda weights: weights.pop("classifier.bias"))
        with pytest.raises(ModelUnavailable), capture_logs():
            load(settings_for(folder), 4096)
        assert capfd.readouterr() == ("", "")


class TestNotFound:
    @pytest.mark.parametrize("name", ["/no/such/model", "./model", "~/no-such-model", "a/b/c"])
    def test_no_such_directory(self, name: str) -> None:
        with pytest.raises(ModelUnavailable, match=f"there is no directory {name}"):
            resolve(settings_for(name))

    def test_a_file(self, folder: Path) -> None:
        with pytest.raises(ModelUnavailable, match=r"is a file: set model\.name \(--model\) to"):
            resolve(settings_for(folder / "model.safetensors"))

    def test_an_invalid_hub_id(self) -> None:
        with pytest.raises(ModelUnavailable, match="neither a directory nor a hub id"):
            resolve(settings_for("two words"))

    def test_offline_and_not_cached(self, offline: Path) -> None:
        """The message tells a variable that was set apart from a network that is away."""
        with pytest.raises(ModelUnavailable) as refused:
            resolve(settings_for("someone/tiny"))
        assert str(refused.value) == (
            f"someone/tiny is not in the hub's cache ({offline}), and the hub is not asked, because "
            "HF_HUB_OFFLINE is set: run `streamlabel model fetch` without it, set model.name (--model) "
            "to a local directory, or to `bundled`"
        )

    def test_an_unreachable_hub(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Uses a real connection, to a local port without a listener."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            nobody = f"http://user:hunter2@{address}"
            monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", nobody)
            with pytest.raises(ModelUnavailable) as refused:
                resolve(settings_for("someone/tiny"))
        assert f"the hub at http://{address} can't be reached: check" in str(refused.value)
        assert "HTTPS_PROXY" in str(refused.value)
        assert "HF_ENDPOINT" in str(refused.value)
        assert "hunter2" not in str(refused.value)

    @pytest.mark.parametrize("status", [403, 502])
    def test_a_hub_that_answers_is_not_unreachable(
        self, status: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        class Refusing(http.server.BaseHTTPRequestHandler):
            def do_HEAD(self) -> None:
                self.send_error(status)

            do_GET = do_HEAD  # noqa: N815

            def log_message(self, *_: Any) -> None:
                """Print nothing."""

        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as hub:
            threading.Thread(target=hub.serve_forever, daemon=True).start()
            monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
            address = f"http://127.0.0.1:{hub.server_port}"
            monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
            with pytest.raises(ModelUnavailable) as refused:
                resolve(settings_for("someone/tiny"))
            hub.shutdown()
        assert f"the hub at {address} answered with HTTP status {status}" in str(refused.value)
        assert "can't be reached" not in str(refused.value)

    @pytest.mark.parametrize(
        ("kind", "message"),
        [
            (GatedRepoError, "accept its terms .* then log in"),
            (RepositoryNotFoundError, "no model someone/tiny on the hub.* log in"),
            (RevisionNotFoundError, "no revision 'v9'"),
            (HfHubHTTPError, "can't be downloaded .* try again later, .*--model.* `bundled`"),
            (RuntimeError, "can't be downloaded .* try again later, .*--model.* `bundled`"),
        ],
    )
    def test_each_error_of_the_hub_has_advice(
        self, kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> str:
            raise kind.__new__(kind)  # their constructors expect a server's response

        monkeypatch.setattr(checkpoints, "snapshot_download", refuse)
        with pytest.raises(ModelUnavailable, match=message):
            resolve(settings_for("someone/tiny", revision="v9"))

    @pytest.mark.parametrize("bundled_model", [True, False])
    def test_a_revision_without_a_hub_is_rejected(self, folder: Path, bundled_model: bool) -> None:
        with pytest.raises(SettingsError, match="only models on the hub have revisions"):
            resolve(settings_for("bundled" if bundled_model else folder, revision="v1"))


def _only_pickles(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def _an_adapter_alone(folder: Path) -> None:
    (folder / "config.json").rename(folder / "adapter_config.json")


def _no_tokenizer(folder: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()


def _cut_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _no_weights_inside(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"<html>not found</html>")


def _a_lost_shard(folder: Path) -> None:
    next(iter(shard(folder).values())).unlink()


def _index_of(shard_name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        index = {"weight_map": {"classifier.weight": shard_name}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def _without(key: str) -> Callable[[Path], None]:
    return lambda folder: change_weights(folder, lambda weights: weights.pop(key))


def _an_encoder_alone(folder: Path) -> None:
    def strip(weights: dict[str, torch.Tensor]) -> None:
        for name in [n for n in weights if not n.startswith("distilbert.")]:
            del weights[name]

    change_weights(folder, strip)


def _config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", **changes)


def _file(name: str, content: str | None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink() if content is None else (folder / name).write_text(content)

    return change


REFUSALS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no config": (
        _file("config.json", None),
        "no config.json: set model.name ",
    ),
    "an adapter alone": (_an_adapter_alone, "merge it into its base model"),
    "a config that is not JSON": (_file("config.json", "{"), "config.json can't be read"),
    "a config that is not an object": (_file("config.json", "[]"), "is not a JSON object"),
    "weights as pickle": (_only_pickles, r"\(pytorch_model\.bin\).*convert them to safetensors"),
    "no weights": (_file("model.safetensors", None), "no model.safetensors"),
    "no tokenizer": (_no_tokenizer, "no tokenizer files"),
    "a broken tokenizer": (_file("tokenizer.json", "{"), "can't be loaded"),
    "cut weights": (_cut_weights, "can't be loaded: SafetensorError.*download or save them again"),
    "weights that are not safetensors": (_no_weights_inside, "can't be loaded: SafetensorError"),
    "a lost shard": (_a_lost_shard, "model-00001-of-00002.safetensors is missing"),
    "an index of a pickle": (_index_of("pytorch_model.bin"), "names 'pytorch_model.bin'"),
    "an index that leads outside": (_index_of("../x.safetensors"), r"names '\.\./x\.safetensors'"),
    "no head": (_an_encoder_alone, "lack classifier.bias, classifier.weight, pre_classifier.bias"),
    "half a head": (_without("pre_classifier.weight"), "lack pre_classifier.weight; choose"),
    "a lost layer": (
        _without("distilbert.transformer.layer.0.ffn.lin1.weight"),
        "lack distilbert.transformer.layer.0.ffn.lin1.weight",
    ),
    "more labels than outputs": (
        _config(id2label={"0": "a", "1": "b", "2": "c"}),
        r"classifier.weight is \[2, 16\] instead of \[3, 16\].*check id2label",
    ),
    "labels from one": (
        _config(id2label={"1": "a", "2": "b"}, label2id=None),
        "does not number the labels from 0",
    ),
    "its own code": (
        _config(model_type="mine", auto_map={"AutoConfig": "mine.Config"}),
        "auto_map.*never run",
    ),
    "an unknown architecture": (_config(model_type="mine"), "'mine', which transformers .* know"),
    "no architecture": (_config(model_type=None), "None, which transformers"),
    "an architecture without a classifier": (
        _config(model_type="vit"),
        "'vit'.*sequence classification",
    ),
    "another task's head": (
        _config(architectures=["DistilBertForTokenClassification"]),
        "was saved as DistilBertForTokenClassification",
    ),
    "a config that names a pickle": (
        _config(transformers_weights="pytorch_model.bin"),
        "can't be loaded: .*pytorch_model.bin",
    ),
    "regression": (_config(problem_type="regression"), "is a regression model"),
}


class TestRejected:
    @pytest.mark.parametrize("case", REFUSALS)
    def test_the_error_has_the_reason_and_advice(self, folder: Path, case: str) -> None:
        damage, message = REFUSALS[case]
        damage(folder)
        with pytest.raises(ModelUnavailable, match=message) as refused:
            load(settings_for(folder), 4096)
        assert "my-model" in str(refused.value)

    def test_an_index_without_files(self, folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "model.safetensors.index.json").write_text("{}")
        with pytest.raises(ModelUnavailable, match="names no file"):
            resolve(settings_for(folder))

    def test_the_models_own_code_is_not_run(self, folder: Path, tmp_path: Path) -> None:
        """Neither for the model nor for the tokenizer, even if the files request it."""
        ran = tmp_path / "ran"
        (folder / "mine.py").write_text(f"open({str(ran)!r}, 'w')\n")
        edit_json(
            folder / "config.json",
            auto_map={"AutoModelForSequenceClassification": "mine.Model", "AutoConfig": "mine.C"},
        )
        edit_json(
            folder / "tokenizer_config.json",
            auto_map={"AutoTokenizer": ["mine.Tokenizer", None]},
            tokenizer_class="MyTokenizer",
        )
        with contextlib.suppress(ModelUnavailable):
            load(settings_for(folder), 4096)
        assert not ran.exists()

    def test_a_pickle_next_to_the_weights_is_not_opened(self, folder: Path) -> None:
        for name in ("pytorch_model.bin", "adapter_model.bin", "training_args.bin"):
            (folder / name).write_bytes(b"no pickle at all")
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        load(settings_for(folder), 4096)


def test_resolving_imports_no_torch(folder: Path) -> None:
    program = (
        "import sys; from worker.inference.checkpoint import resolve;"
        "from worker.settings import ModelSettings;"
        "resolve(ModelSettings(name=sys.argv[1]));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program, str(folder)], check=True)
