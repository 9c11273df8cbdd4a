"""A WordPiece tokenizer and a checkpoint of random weights, made here: no package, no network.

The vocabulary holds the words of the posts that come with streamlabel, and letters for all others, so
that a post has about as many tokens as with BERT's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForSequenceClassification, BertTokenizerFast

from benchmarks.gpu.sizes import Sizes
from worker.demo.fallback_posts import fallback_posts

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_SIZE = 30_522


def tokenizer_folder(folder: Path) -> Path:
    """The tokenizer's files in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    words = {w for post in fallback_posts() for w in re.findall(r"\w+|\S", post.text.lower())}
    letters = {character for word in words for character in word}
    pieces = [*letters, *(f"##{one}" for one in letters), *words]
    vocabulary = list(dict.fromkeys([*_SPECIAL, *sorted(pieces)]))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    made: Any = BertTokenizerFast(vocab={word: n for n, word in enumerate(vocabulary)})
    made.save_pretrained(folder)
    return folder


def checkpoint(folder: Path, sizes: Sizes) -> Path:
    """DistilBERT of random weights with that tokenizer, in `folder`."""
    torch.manual_seed(0)
    config: Any = transformers.DistilBertConfig(
        vocab_size=_SIZE,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
        **sizes.shape,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return tokenizer_folder(folder)
