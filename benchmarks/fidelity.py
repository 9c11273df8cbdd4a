"""Measures the numerical error of each engine against transformers in float32, text by text.

    python -m benchmarks.fidelity --model bundled --limit 300

Prints one JSON object.

Owns: the reference probabilities and the comparison.
Thread: main.
Must not import: kafka.
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
from worker.logs import configure
from worker.settings import ModelSettings

WAYS = (
    ("packed", "float32"),
    ("packed", "bfloat16"),
    ("padded", "float32"),
    ("padded", "bfloat16"),
    ("packed", "int8"),
    ("openvino", "float32"),
    ("openvino", "bfloat16"),
)
_MICRO_BATCH = 128  # batch.max_records
_FORWARD_TOKENS = 1024  # tokens of a pass; the probabilities must not depend on it


def measure(
    settings: ModelSettings,
    texts: Sequence[str],
    ways: Sequence[tuple[str, str]] = WAYS,
) -> dict[str, Any]:
    """Compare engines with the padded forward pass in float32, one text a pass.

    Args:
        settings: the model; its engine and dtype are replaced.
        texts: the texts to label, in arrival order; at least one.
        ways: pairs of model.engine and model.dtype.

    Returns:
        `model`, `weights_sha256`, `texts`, and `ways`: for each `engine` and `dtype` either
        `ran` (the number type that the model took), `max_difference` and `mean_difference` (of a
        probability), `flips` (texts with another most probable label) and `agreement` (share of
        texts with the same one), or `refused`, the reason.

    Raises:
        StreamlabelError: the model can't be loaded.
    """
    tokeniser, classifier = _load(settings, "padded", "float32")
    reference = _label(tokeniser, classifier, texts, _one_by_one)
    card = classifier.card
    del classifier  # frees its memory
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
    probabilities = _label(tokeniser, classifier, texts, budget.cut)
    same = _labels(probabilities) == _labels(reference)
    differences = (probabilities - reference).abs()
    return {
        "ran": classifier.card.dtype,
        "max_difference": float(differences.max()),
        "mean_difference": float(differences.mean()),
        "flips": int((~same).sum()),
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
    """Return probabilities [texts, labels], computed micro-batch by micro-batch."""
    probabilities: dict[int, tuple[float, ...]] = {}
    for start in range(0, len(texts), _MICRO_BATCH):
        for whole in tokeniser.tokenise(texts[start : start + _MICRO_BATCH]):
            for part in cut(whole):
                predictions = zip(part.positions, classifier.predict(part), strict=True)
                probabilities |= {start + position: p.probabilities for position, p in predictions}
    return torch.tensor([probabilities[index] for index in range(len(texts))])


def _one_by_one(model_input: ModelInput) -> Iterator[ModelInput]:
    return (model_input.take([row]) for row in range(len(model_input.ids)))


def _labels(probabilities: Tensor) -> Tensor:
    """Return the most probable labels; for a single output, True if it exceeds 0.5."""
    single = probabilities.shape[1] == 1
    return probabilities[:, 0] > 0.5 if single else probabilities.argmax(1)


def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fidelity", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--model", default="bundled", help="as for `streamlabel run` [bundled]")
    parser.add_argument("--texts", type=Path, help="UTF-8, one text a line [4,200 rated tweets]")
    parser.add_argument("--limit", type=int, help="use only the first texts [all]")
    parser.add_argument("--threads", type=int, help="threads of the model [all cores]")
    args = parser.parse_args()
    configure("warning", "plain")
    settings = ModelSettings(name=args.model, threads=args.threads)
    if args.texts:
        try:
            lines = args.texts.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            parser.error(f"--texts: can't read {args.texts} ({error})")
        texts = [line for line in lines if line.strip()]
    else:
        posts = load_rated("tweets", settings.cache_dir.expanduser())
        texts = [post.text for post in posts]
    if not texts[: args.limit]:
        parser.error("there are no texts to label")
    sys.stdout.write(json.dumps(measure(settings, texts[: args.limit])) + "\n")


if __name__ == "__main__":
    main()
