"""Hostile checkpoints: rejected with a short error, before a giant model is built."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from tests.support.models import Architecture, edit_json, make_checkpoint
from worker.cli import verdicts
from worker.cli.main import main
from worker.errors import ModelUnavailable, RecordRejected
from worker.inference import names, skeleton
from worker.inference.loading import load
from worker.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("offline")

STEERS = "\x1b\x07\x9b\u202e"


@pytest.fixture
def folder(tmp_path: Path, checkpoint: Callable[[Architecture], Path]) -> Path:
    """Return the folder of a checkpoint that the test may damage."""
    return Path(shutil.copytree(checkpoint("distilbert"), tmp_path / "my-model"))


def loaded(folder: Path, **settings: Any) -> Any:
    return load(ModelSettings(name=str(folder), **settings), 4096)


def _config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", **changes)


def _labels(*labels: Any) -> Callable[[Path], None]:
    return _config(id2label={str(i): label for i, label in enumerate(labels)}, label2id=None)


def _nested(folder: Path) -> None:
    (folder / "config.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)


def _giant(folder: Path) -> None:
    with (folder / "config.json").open("w") as file:
        file.truncate(2**30)  # a sparse file, which takes no space


def _index_of(*files: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        index = {"weight_map": {f"w{i}": file for i, file in enumerate(files)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return change


def _id_of(token: str, number: int) -> Callable[[Path], None]:
    """Change the id of a token of the vocabulary."""

    def change(folder: Path) -> None:
        file = folder / "tokenizer.json"
        content = json.loads(file.read_text())
        content["model"]["vocab"][token] = number
        for added in content["added_tokens"]:
            if added["content"] == token:
                added["id"] = number
        file.write_text(json.dumps(content))
        (folder / "vocab.txt").unlink()

    return change


def add_token(folder: Path, token: str) -> None:
    """Add a token to the tokenizer without resizing the model."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([token])
    tokenizer.save_pretrained(folder)


REFUSALS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "ten million layers": (_config(n_layers=10**7), r"tensors.*n_layers = 10000000: download it"),
    "layers behind a padding token that no embedding has": (
        _config(n_layers=10**7, pad_token_id=10**8),
        r"its config\.json describes a model of",
    ),
    "a giant vocabulary": (_config(vocab_size=10**10), r"weights.*vocab_size = 10000000000"),
    "giant layers": (_config(dim=10**6), r"weights.*dim = 1000000"),
    "a giant table of positions": (
        _config(max_position_embeddings=10**10),
        r"weights.*max_position_embeddings = 10000000000",
    ),
    "a million labels": (
        _labels(*map(str, range(10**6))),
        r"id2label .* 1,000,000 labels, and at most",
    ),
    "a number of labels": (
        _config(num_labels=10**12, id2label=None, label2id=None),
        r"num_labels .* at most 100,000",
    ),
    "a deep config": (_nested, r"config\.json can't be read: it is nested too deeply"),
    "a giant config": (_giant, r"config\.json has 1,073,741,824 bytes \(limit 67,108,864\)"),
    "a number as a file": (_index_of(5), r"index\.json names 5, which is not a \.safetensors file"),
    "files of two kinds": (_index_of("a.safetensors", 5), "names 5, which"),
    "a list as a file": (_index_of(["a.safetensors"]), r"names \['a\.safetensors'\], which"),
    "a long file name": (_index_of("x" * 5_000 + ".safetensors"), "names 'xxx.*, which is no"),
    "a lone surrogate in a file name": (_index_of("\ud800.safetensors"), r"names '\\ud800"),
    "a word beyond the embedding": (
        _id_of("hello", 40_000),
        r"no embedding for, 'hello' \(40000\), with 30,522 rows: save tokenizer and",
    ),
    "a special token beyond the embedding": (_id_of("[SEP]", 40_000), r"'\[SEP\]' \(40000\)"),
    "two labels of one name": (
        _labels("a", "b", "a"),
        "output 2 'a', the name of output 0: correct it there",
    ),
    "a lone surrogate in a label": (
        _labels("a", "\ud800"),
        r"output 1 '\[U\+D800\]', which contains a lone surrogate",
    ),
    "an empty label": (_labels("", "b"), "output 0 '', which is blank"),
    "a label without width": (_labels("a", "\u200b"), "output 1 .* which is blank"),
    "a long label": (
        _labels("a", "x" * 200_000),
        "output 1 'x{60}', which has 200,000 char.*1,000",
    ),
    "null as a label": (_labels("a", None), "output 1 'None', which is not a string"),
    "a list as a label": (_labels("a", ["b"]), "which is not a string"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_hostile_checkpoint_is_rejected_with_one_sentence(folder: Path, case: str) -> None:
    damage, message = REFUSALS[case]
    damage(folder)
    with pytest.raises(ModelUnavailable, match=message) as refused:
        loaded(folder)
    error = str(refused.value)
    assert "my-model" in error
    assert "\n" not in error
    assert len(error) < 600


@pytest.mark.parametrize("length", ["many", [64]])
def test_a_length_that_is_not_a_number(folder: Path, length: Any) -> None:
    """Texts are not compared with it before the model is loaded, if no pass needs a check."""
    edit_json(folder / "tokenizer_config.json", model_max_length=length)
    with pytest.raises(ModelUnavailable, match="can't be loaded: TypeError"):
        loaded(folder, dtype="float32", engine="padded")


@pytest.mark.parametrize(("length", "taken"), [(-5, 64), (0, 64), (20.5, 20), (1e30, 64)])
def test_an_unusual_length_is_used(folder: Path, length: Any, taken: int) -> None:
    edit_json(folder / "tokenizer_config.json", model_max_length=length)
    assert loaded(folder)[1].card.max_tokens == taken


def test_a_model_is_measured_before_it_is_built(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its layers are counted while they are built, up to the first one beyond the limit."""
    made: list[object] = []
    layer = transformers.models.distilbert.modeling_distilbert.TransformerBlock
    real = layer.__init__

    def count(self: Any, *args: Any, **kwargs: Any) -> None:
        made.append(self)
        real(self, *args, **kwargs)

    monkeypatch.setattr(layer, "__init__", count)
    edit_json(folder / "config.json", n_layers=10**7)
    with pytest.raises(ModelUnavailable):
        loaded(folder)
    assert len(made) < 1_000


def test_an_ordinary_model_is_not_too_large(folder: Path) -> None:
    """More outputs than in its files is another error, which names the weights."""
    _labels("a", "b", "c")(folder)
    with pytest.raises(ModelUnavailable, match=r"classifier.weight is \[2, 16\] instead of"):
        loaded(folder)


def test_a_config_may_have_no_numbers() -> None:
    assert skeleton._largest({"a": "b"}) == "in a nested object"


def test_a_model_that_can_not_be_built_without_weights_is_still_loaded(folder: Path) -> None:
    def fails(_config: Any) -> torch.nn.Module:
        raise RuntimeError

    checkpoint = skeleton.Checkpoint(folder, "m", "local", {}, (folder / "model.safetensors",))
    assert skeleton.skeleton(fails, None, checkpoint) is None
    assert skeleton.rows_of(None) is None
    assert skeleton.rows_of(torch.nn.Linear(1, 1)) is None


def test_numeric_labels_become_strings() -> None:
    assert names.label_names({0: 1, 1: 2.5, 2: "3"}, "m") == ("1", "2.5", "3")


class TestAddedTokens:
    def test_a_text_with_an_added_token_is_rejected_before_the_model_runs(
        self, folder: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        add_token(folder, "zzz")
        tokeniser, classifier = loaded(folder)
        assert "model has no embedding for some tokens" in capsys.readouterr().out
        with pytest.raises(
            RecordRejected, match="a token of id 30522, but the model has ids below"
        ):
            tokeniser.tokenise(["fine", "a zzz b"])
        (fine,) = tokeniser.tokenise(["fine"])
        assert len(classifier.predict(fine)) == 1

    @pytest.mark.parametrize("engine", ["packed", "padded"])
    def test_an_added_token_in_the_texts_of_the_check_is_harmless(
        self, folder: Path, engine: str
    ) -> None:
        """Emoji are often added to tokenizers, and the texts of the check contain some."""
        add_token(folder, "👍")
        add_token(folder, "ok")
        _, classifier = load(ModelSettings(name=str(folder), engine=engine, lanes=1))
        classifier.warm_up()

    def test_an_added_token_beyond_max_tokens_is_harmless(self, folder: Path) -> None:
        add_token(folder, "zzz")
        tokeniser, _ = loaded(folder)
        assert tokeniser.tokenise(["word " * 500 + "zzz"])[0].truncated == (True,)


class TestKernels:
    @pytest.mark.parametrize("kernel", ["org/kernel", {"": "org/kernel"}, "org/kernel@v1:attend"])
    @pytest.mark.parametrize("member", ["attn_implementation", "_attn_implementation"])
    def test_code_of_the_hub_is_not_requested(
        self, folder: Path, member: str, kernel: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse(*_: Any, **__: Any) -> None:
            pytest.fail("transformers looks for a kernel")

        monkeypatch.setattr(transformers.modeling_utils, "lazy_import_flash_attention", refuse)
        before = loaded(folder)
        edit_json(folder / "config.json", **{member: kernel})
        tokeniser, classifier = loaded(folder)
        (texts,) = tokeniser.tokenise(["the same"])
        assert classifier.predict(texts) == before[1].predict(texts)

    def test_code_for_experts_is_not_requested(self, folder: Path) -> None:
        edit_json(folder / "config.json", experts_implementation="org/kernel")
        loaded(folder)


class TestTerminals:
    """Names in a checkpoint can't control the terminal that displays them."""

    @pytest.fixture
    def hostile_names(self, tmp_path: Path) -> str:
        folder = tmp_path / "\x1b[2Jmodel\u202e"
        return str(make_checkpoint(folder, labels=("\x1b[2Jno", "\x9b31mye\u202es\x07")))

    def run(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
        main(arguments)
        printed = capsys.readouterr()
        assert not set(printed.out + printed.err) & set(STEERS)
        return printed.out + printed.err

    def test_check(
        self,
        hostile_names: str,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setitem(verdicts.CHECKS, "broker", lambda _: verdicts.Finding("answers"))
        monkeypatch.setitem(verdicts.CHECKS, "topics", lambda _: verdicts.Finding("there"))
        output = self.run(capsys, "check", "--model", hostile_names)
        assert "the labels [U+001B][2Jno, [U+009B]31mye[U+202E]s[U+0007]; up to" in output

    def test_the_number_of_shown_labels_is_limited(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(verdicts.CHECKS, "broker", lambda _: verdicts.Finding("answers"))
        monkeypatch.setitem(verdicts.CHECKS, "topics", lambda _: verdicts.Finding("there"))
        folder = make_checkpoint(tmp_path, labels=[f"label{n}" for n in range(500)])
        assert "label29, and 470 more; up to" in self.run(capsys, "check", "--model", str(folder))

    def test_an_error_message(self, hostile_names: str, capsys: pytest.CaptureFixture[str]) -> None:
        edit_json(Path(hostile_names) / "config.json", model_type="\x1b[2Jmine")
        output = self.run(capsys, "classify", "--model", hostile_names, "text")
        assert "[U+001B][2Jmodel[U+202E] is a" in output

    def test_a_name_that_is_not_utf8(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Python decodes it with lone surrogates, which a result can't contain."""
        monkeypatch.chdir(folder.rename(os.fsdecode(os.fsencode(folder.parent) + b"/m\xff")))
        _, classifier = loaded(Path())
        assert classifier.card.name == "m?"
