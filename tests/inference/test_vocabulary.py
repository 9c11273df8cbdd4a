"""Tokenizers of all kinds: only a SentencePiece file, no files, slow ones."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import tokenizers
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from tests.support.models import make_checkpoint
from worker.errors import ModelUnavailable
from worker.inference import tokeniser as tokenisers
from worker.inference.loading import load
from worker.inference.self_check import TEXTS
from worker.inference.tokeniser import TransformersTokeniser, special_tokens
from worker.settings import ModelSettings

pytestmark = pytest.mark.usefixtures("offline")

_BERT = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
}
_BART = {
    "d_model": 16,
    "max_position_embeddings": 66,
    **{f"{part}_layers": 1 for part in ("encoder", "decoder")},
    **{f"{part}_attention_heads": 2 for part in ("encoder", "decoder")},
    **{f"{part}_ffn_dim": 32 for part in ("encoder", "decoder")},
}
# By name in transformers: the SentencePiece file of its checkpoints, and a small config.
SENTENCE_PIECES: dict[str, tuple[str, dict[str, Any]]] = {
    "XLMRoberta": ("sentencepiece.bpe.model", _BERT),
    "Camembert": ("sentencepiece.bpe.model", _BERT),
    "DebertaV2": ("spm.model", _BERT),
    "Albert": ("spiece.model", _BERT | {"embedding_size": 8}),
    "BigBird": ("spiece.model", _BERT | {"attention_type": "original_full"}),
    "XLNet": ("spiece.model", {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32}),
    "MBart": ("sentencepiece.bpe.model", _BART),
}
NO_FILES: dict[str, dict[str, Any]] = {
    "Canine": _BERT | {"num_hash_buckets": 2_048, "max_position_embeddings": 2_048},
    "Perceiver": {
        "d_model": 16,
        "d_latents": 16,
        "num_latents": 8,
        "num_blocks": 1,
        "num_self_attends_per_block": 1,
        "num_self_attention_heads": 2,
        "num_cross_attention_heads": 2,
        "max_position_embeddings": 64,
    },
}


def _write(folder: Path, kind: str, config: dict[str, Any]) -> Path:
    """Return the folder of a checkpoint with random weights and without a tokenizer."""
    model_class = getattr(transformers, f"{kind}ForSequenceClassification")
    made = getattr(transformers, f"{kind}Config")(**config, architectures=[model_class.__name__])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        weights = {n: w.contiguous().clone() for n, w in model_class(made).state_dict().items()}
    made.to_json_file(folder / "config.json", use_diff=False)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


@pytest.fixture(scope="module")
def pieces() -> bytes:
    """Return the file of a SentencePiece model with some two hundred pieces."""
    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=made,
        vocab_size=200,
        hard_vocab_limit=False,
        control_symbols=["[CLS]", "[SEP]", "[MASK]"],
        minloglevel=2,
    )
    return made.getvalue()


@pytest.fixture
def bertweet(tmp_path: Path) -> Any:
    """Return BERTweet's tokenizer, which is written in Python, with a vocabulary of letters."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    lines = [f"{letter}{end} 1" for letter in letters for end in ("@@", "")]
    (tmp_path / "vocab.txt").write_text("\n".join(lines))
    (tmp_path / "bpe.codes").write_text("\n".join(f"{a} {b} 1" for a in "abc" for b in "abc"))
    return transformers.BertweetTokenizer(str(tmp_path / "vocab.txt"), str(tmp_path / "bpe.codes"))


class TestSentencePieces:
    @pytest.mark.parametrize("kind", SENTENCE_PIECES)
    def test_a_sentence_piece_file_is_enough(
        self, tmp_path: Path, pieces: bytes, kind: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        name, config = SENTENCE_PIECES[kind]
        _write(tmp_path, kind, config | {"vocab_size": 400})
        (tmp_path / name).write_bytes(pieces)
        tokeniser, classifier = load(ModelSettings(name=str(tmp_path)), 4096)
        text = "no signal since this morning"
        (model_input,) = tokeniser.tokenise([text])
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
        assert list(model_input.ids[0]) == theirs(text)["input_ids"]
        assert theirs.decode(model_input.ids[0], skip_special_tokens=True).strip() == text
        assert len(classifier.predict(model_input)) == 1
        assert "put them there" not in capsys.readouterr().out

    def test_missing_special_tokens_are_logged(
        self, tmp_path: Path, pieces: bytes, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Transformers builds RemBERT's tokenizer without them."""
        kind = _BERT | {"input_embedding_size": 8, "output_embedding_size": 8, "vocab_size": 400}
        _write(tmp_path, "RemBert", kind)
        (tmp_path / "sentencepiece.model").write_bytes(pieces)
        load(ModelSettings(name=str(tmp_path)), 4096)
        assert (
            "transformers does not add this tokenizer's special tokens" in capsys.readouterr().out
        )

    def test_a_damaged_file_is_reported(self, tmp_path: Path) -> None:
        """Transformers would report another package as missing."""
        _write(tmp_path, "XLMRoberta", _BERT | {"vocab_size": 400})
        (tmp_path / "sentencepiece.bpe.model").write_bytes(b"<html>not found</html>")
        with pytest.raises(ModelUnavailable, match=r"sentencepiece\.bpe\.model can't be read as a"):
            load(ModelSettings(name=str(tmp_path)), 4096)


class TestNoFiles:
    @pytest.mark.parametrize("kind", NO_FILES)
    def test_tokenizers_of_characters_and_bytes_need_no_vocabulary(
        self, tmp_path: Path, kind: str
    ) -> None:
        _write(tmp_path, kind, NO_FILES[kind])
        tokeniser, classifier = load(ModelSettings(name=str(tmp_path)), 4096)
        (model_input,) = tokeniser.tokenise(["ok"])
        assert len(model_input.ids[0]) == len("ok") + 2
        assert len(classifier.predict(model_input)) == 1

    def test_tokenizers_of_words_need_a_vocabulary(self, tmp_path: Path) -> None:
        _write(tmp_path, "XLMRoberta", _BERT | {"vocab_size": 400})
        with pytest.raises(ModelUnavailable, match=r"no tokenizer files .* save its tokenizer"):
            load(ModelSettings(name=str(tmp_path)), 4096)


def test_a_missing_package_is_reported(tmp_path: Path) -> None:
    """XLM's tokenizer needs sacremoses."""
    _write(tmp_path, "XLM", {"emb_dim": 16, "n_layers": 1, "n_heads": 2, "vocab_size": 400})
    (tmp_path / "vocab.json").write_text("{}")
    (tmp_path / "merges.txt").write_text("#version: 0.2\n")
    with pytest.raises(ModelUnavailable, match=r"sacremoses.*; install that package, or choose"):
        load(ModelSettings(name=str(tmp_path)), 4096)


class TestSlowMerges:
    def test_a_long_word_is_cut_before_it_is_merged(
        self, bertweet: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The time of merging grows with the square of the letters: 100,000 would take minutes."""
        merged: list[int] = []
        real = bertweet.bpe
        monkeypatch.setattr(bertweet, "bpe", lambda word: merged.append(len(word)) or real(word))
        tokeniser = TransformersTokeniser(bertweet, max_tokens=128)
        (model_input,) = tokeniser.tokenise(["z" * 100_000, "abc", "fine words"])
        assert max(merged) <= 501  # a line break may follow a word
        cut = dict(zip(model_input.positions, model_input.truncated, strict=True))
        assert cut == {0: True, 1: False, 2: False}

    def test_a_text_with_a_cut_word_is_flagged_as_truncated(self, bertweet: Any) -> None:
        (model_input,) = TransformersTokeniser(bertweet, max_tokens=2_000).tokenise(
            ["ok " + "a" * 600]
        )
        assert model_input.truncated == (True,)
        assert len(model_input.ids[0]) < 2_000

    def test_the_cache_of_words_is_limited(
        self, bertweet: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(tokenisers, "_WORDS", 100)
        tokeniser = TransformersTokeniser(bertweet, max_tokens=128)
        for number in range(1_000):
            tokeniser.tokenise([f"a{number}a b{number}b"])
        assert len(bertweet.cache) <= 102

    def test_only_slow_tokenizers_cut_scripts_without_spaces(self, tmp_path: Path) -> None:
        """A Chinese text is one long word, which tokenizers of characters handle quickly."""
        _write(tmp_path, "Canine", NO_FILES["Canine"])
        tokeniser, _ = load(ModelSettings(name=str(tmp_path)), 4096)
        (model_input,) = tokeniser.tokenise(["字" * 1_500])
        assert (model_input.truncated, len(model_input.ids[0])) == ((False,), 1_502)


class TestSpecialTokens:
    def test_a_tokenizer_without_the_letter_a(self) -> None:
        """It has no unknown token either, and returns no token for unknown text."""
        letters = {"[CLS]": 0, "[SEP]": 1, "x": 2, "y": 3}
        backend = tokenizers.Tokenizer(BPE(letters, []))
        backend.pre_tokenizer = Whitespace()
        backend.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 0), ("[SEP]", 1)]
        )
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend, cls_token="[CLS]", sep_token="[SEP]"
        )
        assert special_tokens(tokenizer) == ((0,), (1,))

    def test_a_tokenizer_without_any_token_is_rejected(self) -> None:
        class Mute:
            all_special_ids = ()

            def __len__(self) -> int:
                return 3

            def decode(self, ids: list[int]) -> str:
                return str(ids)

            def __call__(self, texts: list[str], **_: Any) -> dict[str, list[list[int]]]:
                return {"input_ids": [[] for _ in texts]}

        with pytest.raises(ModelUnavailable, match="returns no token for any text"):
            special_tokens(Mute())


class TestUnused:
    def test_unused_weights_are_logged(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """For example relative positions, which transformers has removed from BERT."""
        folder = make_checkpoint(tmp_path, architecture="bert")
        weights = load_file(folder / "model.safetensors")
        name = "bert.encoder.layer.0.attention.self.distance_embedding.weight"
        weights[name] = torch.zeros(127, 8)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        load(ModelSettings(name=str(folder)), 4096)
        output = capsys.readouterr().out
        assert "checkpoint has weights that this architecture" in output
        assert name in output

    def test_an_adapter_in_the_folder_of_a_model_is_logged(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = make_checkpoint(tmp_path)
        (folder / "adapter_config.json").write_text('{"peft_type": "LORA"}')
        load(ModelSettings(name=str(folder)), 4096)
        assert "adapter in the model's folder is not applied" in capsys.readouterr().out
