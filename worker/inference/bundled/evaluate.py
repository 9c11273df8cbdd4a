"""Measures the bundled model: python -m worker.inference.bundled.evaluate.

Every figure is measured on texts that the adapter was not trained on. `dev` served to choose the
recipe; `test` and `judged` serve only to report.

Owns: the figures of the model card, and their definitions.
Thread: main, of this program; never in a worker.
Must not import: kafka, peft.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from worker.inference.bundled import corpus, prepare
from worker.inference.bundled.corpus import Corpus, Example
from worker.inference.bundled.merge import LABEL2ID

SENTENCES: Final = (
    "I've been waiting for a HuggingFace course my whole life.",
    "I hate this so much!",
)

Scorer = Callable[[Sequence[str]], list[float]]

_CACHE: Final = Path("~/.cache/streamlabel")
_BATCH: Final = 32
_MAX_TOKENS: Final = 256
# Texts whose mean rating is closer to 0 than the first number are neutral; beyond the second they
# are clearly positive or negative; between the two, people disagree.
_NEUTRAL, _CLEAR, _STRONG = 0.5, 1.0, 1.5


def measure(checkpoint: Path, texts: Corpus) -> dict[str, Any]:
    """Return every figure of a checkpoint folder, ready for JSON."""
    score = _scorer(checkpoint)
    return {
        "texts": {name: len(getattr(texts, name)) for name in Corpus.__slots__},
        "dev": _by_source(texts.dev, score),
        "test": _by_source(texts.test, score),
        "judged": _by_source(texts.judged, score),
        "positive": dict(zip(SENTENCES, (round(p, 4) for p in score(SENTENCES)), strict=True)),
    }


def add_cache_option(parser: argparse.ArgumentParser) -> None:
    """Add the --cache option, which both programs of this package share."""
    parser.add_argument(
        "--cache",
        type=lambda value: Path(value).expanduser(),
        default=_CACHE.expanduser(),
        help="folder for the rated texts and the merged model [%(default)s]",
    )


def _scorer(checkpoint: Path) -> Scorer:
    """Load a checkpoint, and return a function that returns each text's probability of POSITIVE."""
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()

    @torch.inference_mode()
    def score(texts: Sequence[str]) -> list[float]:
        scores = [0.0] * len(texts)
        by_length = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        for start in range(0, len(by_length), _BATCH):
            taken = by_length[start : start + _BATCH]
            inputs = tokenizer(
                [texts[number] for number in taken],
                padding=True,
                truncation=True,
                max_length=_MAX_TOKENS,
                return_tensors="pt",
            )
            positive = model(**inputs).logits.softmax(dim=-1)[:, LABEL2ID["POSITIVE"]]
            for number, probability in zip(taken, positive.tolist(), strict=True):
                scores[number] = probability
        return scores

    return score


def _by_source(examples: Sequence[Example], score: Scorer) -> dict[str, Any]:
    kinds = corpus.by_kind(examples)
    figures: dict[str, Any] = {kind: _figures(texts, score) for kind, texts in kinds.items()}
    pretokenised = _figures(kinds["movies"], lambda texts: score(_pretokenised(texts)))
    return {**figures, "movies, pretokenised": pretokenised}


def _pretokenised(texts: Sequence[str]) -> list[str]:
    return [corpus.pretokenised(text) for text in texts]


def _figures(examples: Sequence[Example], score: Scorer) -> dict[str, Any]:
    """Return the figures of some texts.

    Accuracy compares the likelier label with the sign of the valence. Decision is the mean of
    |p - 0.5|.
    """
    scores = score([example.text for example in examples])
    rows = [
        (abs(example.valence), (probability > 0.5) == (example.valence > 0), abs(probability - 0.5))
        for example, probability in zip(examples, scores, strict=True)
    ]
    return {
        "texts": len(rows),
        "accuracy, all but exact 0": _mean(right for size, right, _ in rows if size > 0),
        "accuracy, |valence| >= 1": _mean(right for size, right, _ in rows if size >= _CLEAR),
        "texts, |valence| >= 1": sum(size >= _CLEAR for size, _, _ in rows),
        "decision, |valence| < 0.5": _mean(far for size, _, far in rows if size < _NEUTRAL),
        "decision, |valence| >= 1.5": _mean(far for size, _, far in rows if size >= _STRONG),
    }


def _mean(values: Any) -> float | None:
    numbers = list(values)
    return round(fmean(numbers), 4) if numbers else None


def main() -> None:
    """Measure the shipped adapter and print the figures as one JSON document."""
    parser = argparse.ArgumentParser(description="Measure the bundled model.")
    add_cache_option(parser)
    cache: Path = parser.parse_args().cache
    figures = measure(prepare(cache), corpus.load(cache))
    sys.stdout.write(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
