"""A checkpoint with the reference's exact architecture and random weights, made on disk once.

    python -m benchmarks.random_model        prints the folder

It replaces distilbert-base-uncased-finetuned-sst-2-english on machines without that checkpoint: the
time of a forward pass does not depend on the weights. The tokenizer is the same: BERT's uncased
vocabulary, from the package of the bundled model.

Owns: the checkpoint's folder.
Thread: the caller's.
Must not import: kafka.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Final

from worker.inference.bundled import encoder
from worker.settings import ModelSettings

SEED: Final = 0
NAME: Final = f"random-distilbert-sst2-{SEED}"
# The members of the checkpoint's config.json that differ from transformers' defaults.
_ARCHITECTURE: Final = {
    "vocab_size": 30_522,
    "max_position_embeddings": 512,
    "dim": 768,
    "n_layers": 6,
    "n_heads": 12,
    "hidden_dim": 3_072,
    "id2label": {0: "NEGATIVE", 1: "POSITIVE"},
    "label2id": {"NEGATIVE": 0, "POSITIVE": 1},
}


def random_model(cache_dir: Path) -> Path:
    """Return the checkpoint's folder below `cache_dir`, made on the first call.

    Raises ModelUnavailable if the package with the vocabulary is missing.
    """
    final = cache_dir / NAME
    if not final.is_dir():
        cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".random-", dir=cache_dir) as scratch:
            checkpoint = Path(scratch, "checkpoint")
            _write(checkpoint)
            checkpoint.rename(final)
    return final


def _write(folder: Path) -> None:
    import torch
    from transformers import DistilBertConfig, DistilBertForSequenceClassification, logging

    logging.disable_progress_bar()
    torch.manual_seed(SEED)
    model = DistilBertForSequenceClassification(DistilBertConfig(**_ARCHITECTURE))
    model.save_pretrained(folder)
    source = encoder.locate()
    for name in ("vocab.txt", "special_tokens_map.json", "tokenizer_config.json"):
        shutil.copyfile(source / name, folder / name)
    # The package's file pads and truncates every text to 128 tokens.
    tokenizer = json.loads((source / "tokenizer.json").read_text(encoding="utf-8"))
    tokenizer |= {"padding": None, "truncation": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")


if __name__ == "__main__":
    print(random_model(ModelSettings().cache_dir.expanduser()))
