"""Trains the bundled model's adapter: python -m worker.inference.bundled.train.

Owns: the recipe, from the rated texts to an adapter in PEFT's own format. Runs on: the main thread
of a program of its own; never in a worker. Must not import: kafka. Needs the `train` extra (peft).

The report, one JSON document, goes to standard output; the progress goes to standard error.
"""

import argparse
import json
import math
import random
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

import torch
from peft import LoraConfig, TaskType, get_peft_model
from safetensors.torch import load_file, save
from transformers import AutoTokenizer, BertForSequenceClassification

from worker.clock import SystemClock
from worker.inference.bundled import ADAPTER, corpus, encoder, evaluate
from worker.inference.bundled.corpus import Example
from worker.inference.bundled.merge import ID2LABEL, LABEL2ID, write_checkpoint

BASE_MODEL: Final = "sentence-transformers/all-MiniLM-L6-v2"

_MAX_TOKENS: Final = 96
# Editorials are many and mostly neutral; single words are many and short. Neither may dominate.
_SHARE_PER_EPOCH: Final = {"nyt": 0.5}
_WEIGHT: Final = {"lexicon": 0.3}
_PRETOKENISED_SHARE: Final = 0.5
_WORDS_MASKED: Final = 0.05


@dataclass(frozen=True, slots=True)
class Recipe:
    """What one run may vary. `rate` is the adapter's; fully trained weights learn slower."""

    epochs: int = 4
    rank: int = 16
    rate: float = 1e-3
    full_rate: float = 3e-4
    batch: int = 32
    seed: int = 7


def adapted(folder: Path, recipe: Recipe) -> Any:
    """Return the encoder with a fresh head and adapter.

    The linears of every layer get a low-rank update; biases, layer norms, pooler and classifier
    are trained whole.
    """
    base = BertForSequenceClassification.from_pretrained(
        folder,
        num_labels=len(ID2LABEL),
        id2label=ID2LABEL,
        label2id=LABEL2ID,
        attention_probs_dropout_prob=0.0,  # with it, a step takes a fifth longer on a CPU
    )
    config = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=recipe.rank,
        lora_alpha=recipe.rank,
        target_modules=r".*\.layer\.\d+\..*(query|key|value|dense)",
        modules_to_save=["LayerNorm", "pooler", "classifier"],
        bias="lora_only",
    )
    return get_peft_model(base, config)


def fit(model: Any, tokenizer: Any, examples: Sequence[Example], recipe: Recipe) -> None:
    """Train in place, with warm-up and a cosine down to nothing."""
    draw = random.Random(recipe.seed)
    epochs = [_batches(examples, recipe.batch, draw) for _ in range(recipe.epochs)]
    total = sum(map(len, epochs))
    optimiser = torch.optim.AdamW(_groups(model, recipe), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _pace(step, total))
    model.train()
    for number, batches in enumerate(epochs, start=1):
        summed = 0.0
        for position, batch in enumerate(batches, start=1):
            loss = _loss(model, tokenizer, batch, draw)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()
            summed += loss.item()
            if position % 100 == 0 or position == len(batches):
                _say(f"epoch {number}: {position}/{len(batches)}, loss {summed / position:.4f}")


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter in half precision, and no path of this machine with it."""
    model.peft_config["default"].base_model_name_or_path = BASE_MODEL
    with tempfile.TemporaryDirectory() as scratch:
        model.save_pretrained(scratch, save_embedding_layers=False)
        tensors = load_file(Path(scratch, "adapter_model.safetensors"))
        config = json.loads(Path(scratch, "adapter_config.json").read_text(encoding="utf-8"))
    halved = {name: tensor.half() for name, tensor in tensors.items()}
    config["modules_to_save"] = sorted(set(config["modules_to_save"]) - {"score"})
    folder.mkdir(parents=True, exist_ok=True)
    # Not save_file: it makes files that only their owner may read.
    content = save(halved, metadata={"format": "pt"})
    (folder / "adapter_model.safetensors").write_bytes(content)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def _groups(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    trained = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    return [
        {"params": [w for name, w in trained if "lora_" in name], "lr": recipe.rate},
        {"params": [w for name, w in trained if "lora_" not in name], "lr": recipe.full_rate},
    ]


def _pace(step: int, total: int) -> float:
    warm_up = max(1, total // 16)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


def _batches(examples: Sequence[Example], size: int, draw: random.Random) -> list[list[Example]]:
    """One epoch: texts of like length share a batch, and the batches come in any order."""
    kept = [e for e in examples if draw.random() < _SHARE_PER_EPOCH.get(e.source, 1.0)]
    kept.sort(key=lambda example: len(example.text) * draw.uniform(0.9, 1.1))
    starts = list(range(0, len(kept), size))
    draw.shuffle(starts)
    return [kept[start : start + size] for start in starts]


def _loss(
    model: Any, tokenizer: Any, batch: Sequence[Example], draw: random.Random
) -> torch.Tensor:
    """Weighted cross-entropy against the soft targets; a scalar."""
    inputs = tokenizer(
        [_disguised(example.text, draw) for example in batch],
        padding=True,
        truncation=True,
        max_length=_MAX_TOKENS,
        return_tensors="pt",
    )
    positive = torch.tensor([corpus.target(example.valence) for example in batch])
    weights = torch.tensor([_WEIGHT.get(example.source, 1.0) for example in batch])
    wanted = torch.stack((1.0 - positive, positive), dim=1)
    logits = model(**inputs).logits
    losses = torch.nn.functional.cross_entropy(logits, wanted, reduction="none")
    return (losses * weights).mean()


def _disguised(text: str, draw: random.Random) -> str:
    """The same text as another source might write it, with a word hidden now and then."""
    if draw.random() < _PRETOKENISED_SHARE:
        text = corpus.pretokenised(text)
    words = text.split()
    if len(words) > 3:
        words = [word if draw.random() >= _WORDS_MASKED else "[MASK]" for word in words]
    return " ".join(words)


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the bundled model's adapter.")
    parser.add_argument("--out", type=Path, default=ADAPTER, help="where the adapter goes")
    parser.add_argument(
        "--exclude",
        type=Path,
        default=corpus.NEVER_TRAIN_ON,
        help="fingerprints of the texts that must not be trained on, one a line",
    )
    evaluate.add_cache_option(parser)
    for option in fields(Recipe):
        parser.add_argument(f"--{option.name}", type=type(option.default), default=option.default)
    return parser.parse_args()


def main() -> None:
    """Train, write the adapter, and measure what was written."""
    options = _options()
    recipe = Recipe(**{option.name: getattr(options, option.name) for option in fields(Recipe)})
    texts = corpus.load(options.cache, options.exclude)
    folder = encoder.locate()
    torch.manual_seed(recipe.seed)
    model = adapted(folder, recipe)
    clock = SystemClock()
    started = clock.monotonic()
    fit(model, AutoTokenizer.from_pretrained(folder), texts.train, recipe)
    seconds = clock.monotonic() - started
    save_adapter(model, options.out)
    with tempfile.TemporaryDirectory() as scratch:
        write_checkpoint(folder, options.out, Path(scratch))
        measured = evaluate.measure(Path(scratch), texts)
    report = {"recipe": asdict(recipe), "training_seconds": round(seconds), **measured}
    sys.stdout.write(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
