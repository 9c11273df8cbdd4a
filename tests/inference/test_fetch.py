"""`streamlabel model fetch`: what an init container runs before a worker starts."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.hub import COMMIT, hub
from tests.support.models import Architecture, edit_json
from worker.cli.main import main
from worker.inference import bundled
from worker.settings import child_environment

NAME = "someone/tiny"
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


@pytest.fixture
def folder(tmp_path: Path, checkpoint: Callable[[Architecture], Path]) -> Path:
    """Return the folder of a checkpoint that the test may damage."""
    return Path(shutil.copytree(checkpoint("distilbert"), tmp_path / "my-model"))


def fetched(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["model", "fetch", "--json", *arguments]) == 0
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def run(*arguments: str, **environment: str) -> tuple[int, str, str]:
    command = [sys.executable, "-P", "-m", "worker", *arguments]
    done = subprocess.run(
        command,
        env=child_environment() | environment,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_a_directory_is_checked_and_described(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = (folder / "model.safetensors").read_bytes()
    document = fetched(capsys, "--model", str(folder))
    assert document.pop("bytes") == sum(file.stat().st_size for file in folder.iterdir())
    assert document == {
        "model": "my-model",
        "revision": "local",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "labels": ["NEGATIVE", "POSITIVE"],
        "activation": "softmax",
        "folder": str(folder),
    }


def test_the_bundled_model_is_prepared_in_the_cache(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    prepared: list[Path] = []
    monkeypatch.setattr(bundled, "prepare", lambda cache: prepared.append(cache) or folder)
    fetched(capsys, "--model", "bundled", "--model-cache-dir", str(tmp_path / "cache"))
    assert prepared == [tmp_path / "cache"]


def test_a_person_reads_lines(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    edit_json(folder / "config.json", id2label={"0": "fine", "1": "not \x1b[2J fine"})
    assert main(["model", "fetch", "--model", str(folder)]) == 0
    printed = capsys.readouterr().out
    names = [line.split()[0] for line in printed.splitlines()]
    assert names == ["model", "revision", "sha256", "labels", "size", "folder"]
    assert "labels    fine, not [U+001B][2J fine" in printed


def test_each_of_several_models_is_fetched(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = f'{{tone = {{name = "{folder}"}}, again = {{name = "{folder}"}}}}'
    assert main(["model", "fetch", "--json", "--models", models]) == 0
    document = json.loads(capsys.readouterr().out)
    assert list(document) == ["models"]
    assert document["models"]["tone"] == document["models"]["again"]
    assert main(["model", "fetch", "--models", models]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert names == ["name", "model", "revision", "sha256", "labels", "size", "folder"] * 2


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda f: (f / "config.json").unlink(), "no config.json"),
        (lambda f: (f / "model.safetensors").write_bytes(b"<html>"), "SafetensorError"),
        (lambda f: [(f / name).unlink() for name in _TOKENIZER], "no tokenizer files"),
        (
            lambda f: edit_json(f / "config.json", architectures=["BertForTokenClassification"]),
            "not for sequence classification",
        ),
    ],
)
def test_what_a_worker_could_not_use_is_refused(
    folder: Path, damage: Callable[[Path], Any], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(folder)
    assert main(["model", "fetch", "--model", str(folder)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("streamlabel: my-model ")
    assert reason in line


def test_a_fetched_model_of_the_hub_needs_no_hub_afterwards(folder: Path, tmp_path: Path) -> None:
    """The worker loads what the init container downloaded; the hub is gone by then."""
    home = {"HF_HOME": str(tmp_path / "home")}
    with hub(NAME, folder) as endpoint:
        code, out, err = run(
            "model", "fetch", "--json", "--model", NAME, HF_ENDPOINT=endpoint, **home
        )
    assert code == 0, err
    document = json.loads(out)
    assert (document["model"], document["revision"]) == (NAME, COMMIT)
    assert document["folder"].startswith(str(tmp_path / "home"))
    code, out, err = run("classify", "--model", NAME, "fine", HF_HUB_OFFLINE="1", **home)
    assert code == 0, err
    assert "NEGATIVE" in out or "POSITIVE" in out


def test_a_model_that_the_hub_lacks_is_refused(folder: Path, tmp_path: Path) -> None:
    with hub(NAME, folder) as endpoint:
        given = ("model", "fetch", "--model", "someone/other")
        code, _, err = run(*given, HF_ENDPOINT=endpoint, HF_HOME=str(tmp_path / "home"))
    assert code == 1
    assert "there is no model someone/other on the hub" in err.splitlines()[-1]
