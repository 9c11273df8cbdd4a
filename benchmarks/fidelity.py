"""How near each engine comes to transformers in float32, one text at a time; a program of its own.

    python -m benchmarks.fidelity --model bundled --limit 300

prints one JSON object. No worker imports this; it may use the rated posts of the demo.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from worker.core.budget import ForwardBudget
from worker.core.records import ModelInput
from worker.demo.posts import load_rated
from worker.errors import StreamlabelError
from worker.inference.classifier import TransformersClassifier
from worker.inference.loading import load
from worker.inference.tokeniser import TransformersTokeniser
from worker.settings import ModelSettings

WAYS = (
    ("packed", "float32"),
    ("packed", "bfloat16"),
    ("padded", "float32"),
    ("padded", "bfloat16"),
)
_MICRO_BATCH = 128  # batch.max_records
_FORWARD_TOKENS = 1024  # of a pass; the result must not depend on it


def measure(
    settings: ModelSettings,
    texts: Sequence[str],
    ways: Sequence[tuple[str, str]] = WAYS,
) -> dict[str, Any]:
    """Compare engines with the plain forward pass in float32, each text alone in its pass.

    Args:
        settings: the model; its engine and dtype are replaced.
        texts: what to label, in the order in which they arrive; at least one.
        ways: pairs of model.engine and model.dtype.

    Returns:
        `model`, `weights_sha256`, `texts`, and `ways`: for each `engine`, `dtype`, and either
        `max_difference` (of a probability) and `agreement` (share of texts whose most probable
        label is the same), or `refused`, the reason.

    Raises:
        StreamlabelError: the model can't be loaded.
    """
    tokeniser, plain = _load(settings, "padded", "float32")
    reference = _label(tokeniser, plain, texts, _one_by_one)
    card = plain.card
    del plain
    return {
        "model": card.name,
        "weights_sha256": card.weights_sha256,
        "texts": len(texts),
        "ways": [
            {"engine": engine, "dtype": dtype} | _compare(settings, engine, dtype, texts, reference)
            for engine, dtype in ways
        ],
    }


def _compare(
    settings: ModelSettings, engine: str, dtype: str, texts: Sequence[str], reference: Tensor
) -> dict[str, Any]:
    try:
        tokeniser, classifier = _load(settings, engine, dtype)
    except StreamlabelError as error:
        return {"refused": str(error)}
    budget = ForwardBudget(_FORWARD_TOKENS, pads=classifier.card.pads)
    found = _label(tokeniser, classifier, texts, budget.cut)
    same = _labels(found) == _labels(reference)
    return {
        "max_difference": float((found - reference).abs().max()),
        "agreement": float(same.float().mean()),
    }


def _load(
    settings: ModelSettings, engine: str, dtype: str
) -> tuple[TransformersTokeniser, TransformersClassifier]:
    chosen = {"engine": engine, "dtype": dtype}
    return load(ModelSettings.model_validate(settings.model_dump() | chosen))


def _label(
    tokeniser: TransformersTokeniser,
    classifier: TransformersClassifier,
    texts: Sequence[str],
    cut: Callable[[ModelInput], Iterator[ModelInput]],
) -> Tensor:
    """Probabilities [texts, labels], micro-batch by micro-batch."""
    found: dict[int, tuple[float, ...]] = {}
    for start in range(0, len(texts), _MICRO_BATCH):
        for whole in tokeniser.tokenise(texts[start : start + _MICRO_BATCH]):
            for one in cut(whole):
                predictions = zip(one.positions, classifier.predict(one), strict=True)
                found |= {start + position: p.probabilities for position, p in predictions}
    return torch.tensor([found[place] for place in range(len(texts))])


def _one_by_one(model_input: ModelInput) -> Iterator[ModelInput]:
    return (model_input.take([row]) for row in range(len(model_input.ids)))


def _labels(probabilities: Tensor) -> Tensor:
    """The most probable label; of a single output, whether it is the more probable."""
    one = probabilities.shape[1] == 1
    return probabilities[:, 0] > 0.5 if one else probabilities.argmax(1)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fidelity", description=__doc__)
    parser.add_argument("--model", default="bundled", help="as of `streamlabel run`")
    parser.add_argument("--texts", type=Path, help="a text a line; default: 4,200 tweets")
    parser.add_argument("--limit", type=int, help="the first so many texts; default: all")
    parser.add_argument("--threads", type=int, help="of the model; default: all cores")
    args = parser.parse_args()
    settings = ModelSettings(name=args.model, threads=args.threads)
    if args.texts:
        try:
            lines = args.texts.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"--texts {args.texts} can't be read: {error}")
        texts = [line for line in lines if line.strip()]
    else:
        posts = load_rated("tweets", settings.cache_dir.expanduser())
        texts = [post.text for post in posts]
    if not texts[: args.limit]:
        parser.error("there are no texts")
    sys.stdout.write(json.dumps(measure(settings, texts[: args.limit])) + "\n")


if __name__ == "__main__":
    main()
