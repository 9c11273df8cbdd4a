"""Trains the bundled model's adapter: python -m worker.inference.bundled.train.

Needs the `train` extra (peft). Prints the report, one JSON document, to standard output, and the
progress to standard error.

Owns: the recipe, from the rated texts to an adapter in PEFT's format.
Thread: main, of this program; never in a worker.
Must not import: kafka.
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
# Many texts are editorials, mostly neutral, or single words; these numbers keep either from
# dominating.
_SHARE_PER_EPOCH: Final = {"nyt": 0.5}
_WEIGHT: Final = {"lexicon": 0.3}
_PRETOKENISED_SHARE: Final = 0.5
_WORDS_MASKED: Final = 0.05


@dataclass(frozen=True, slots=True)
class Recipe:
    """The options of one run. `rate` is the adapter's; fully trained weights use `full_rate`."""

    epochs: int = 4
    rank: int = 16
    rate: float = 1e-3
    full_rate: float = 3e-4
    batch: int = 32
    seed: int = 7


def adapted(folder: Path, recipe: Recipe) -> Any:
    """Return the encoder with a new head and adapter.

    The linear layers get a low-rank update; biases, layer norms, pooler and classifier are trained
    fully.
    """
    base = BertForSequenceClassification.from_pretrained(
        folder,
        num_labels=len(ID2LABEL),
        id2label=ID2LABEL,
        label2id=LABEL2ID,
        attention_probs_dropout_prob=0.0,  # dropout would make a step a fifth slower on a CPU
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
    """Train in place, with a warm-up and a cosine decay to 0."""
    draw = random.Random(recipe.seed)
    epochs = [_batches(examples, recipe.batch, draw) for _ in range(recipe.epochs)]
    total = sum(map(len, epochs))
    optimiser = torch.optim.AdamW(_groups(model, recipe), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: _rate_at(step, total))
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
                _log(f"epoch {number}: {position}/{len(batches)}, loss {summed / position:.4f}")


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter in half precision, without any path of this machine."""
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


def _rate_at(step: int, total: int) -> float:
    warm_up = max(1, total // 16)
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1.0 + math.cos(math.pi * (step - warm_up) / max(1, total - warm_up)))


def _batches(examples: Sequence[Example], size: int, draw: random.Random) -> list[list[Example]]:
    """Return the batches of one epoch in random order; texts of similar length share a batch."""
    kept = [e for e in examples if draw.random() < _SHARE_PER_EPOCH.get(e.source, 1.0)]
    kept.sort(key=lambda example: len(example.text) * draw.uniform(0.9, 1.1))
    starts = list(range(0, len(kept), size))
    draw.shuffle(starts)
    return [kept[start : start + size] for start in starts]


def _loss(
    model: Any, tokenizer: Any, batch: Sequence[Example], draw: random.Random
) -> torch.Tensor:
    """Return the weighted cross-entropy against the soft targets, a scalar."""
    inputs = tokenizer(
        [_augmented(example.text, draw) for example in batch],
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


def _augmented(text: str, draw: random.Random) -> str:
    """Return the text in the style of another source, with some words masked."""
    if draw.random() < _PRETOKENISED_SHARE:
        text = corpus.pretokenised(text)
    words = text.split()
    if len(words) > 3:
        words = [word if draw.random() >= _WORDS_MASKED else "[MASK]" for word in words]
    return " ".join(words)


def _log(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train the bundled model's adapter.")
    parser.add_argument("--out", type=Path, default=ADAPTER, help="folder of the adapter")
    parser.add_argument(
        "--exclude",
        type=Path,
        default=corpus.NEVER_TRAIN_ON,
        help="file with the fingerprints of texts that must not be trained on, one on each line",
    )
    evaluate.add_cache_option(parser)
    for option in fields(Recipe):
        parser.add_argument(f"--{option.name}", type=type(option.default), default=option.default)
    return parser.parse_args()


def main() -> None:
    """Train, write the adapter, and measure it."""
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
