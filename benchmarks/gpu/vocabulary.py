"""Makes a WordPiece tokenizer and a checkpoint with random weights, without any download.

The vocabulary has the words of the package's posts, and single letters for other words, so that a
post has about as many tokens as with BERT's vocabulary.

Owns: both folders.
Thread: main.
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
    """Write the tokenizer's files to `folder` and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = [post.text.lower() for post in fallback_posts()]
    words = {word for text in texts for word in re.findall(r"\w+|\S", text)}
    letters = {letter for word in words for letter in word}
    pieces = [*letters, *(f"##{letter}" for letter in letters), *words]
    vocabulary = list(dict.fromkeys([*_SPECIAL, *sorted(pieces)]))
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer: Any = BertTokenizerFast(vocab={word: n for n, word in enumerate(vocabulary)})
    tokenizer.save_pretrained(folder)
    return folder


def checkpoint(folder: Path, sizes: Sizes) -> Path:
    """Write DistilBERT with random weights and the tokenizer to `folder` and return it."""
    torch.manual_seed(0)
    config: Any = transformers.DistilBertConfig(
        vocab_size=_SIZE,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
        **sizes.shape,
    )
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    return tokenizer_folder(folder)
