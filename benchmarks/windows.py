"""Compares windows with a plain loop of transformers, and times the calls of the tokenizer.

    python -m benchmarks.windows

Prints two tables in Markdown: the largest difference of a probability by the model's shape, the
preparation and the treatment of long texts; and the longest call of the tokenizer for a megabyte.

Owns: the plain loop, and the texts.
Thread: main.
Must not import: kafka.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, logging

from tests.support.models import make_checkpoint
from worker.clock import SystemClock
from worker.core.budget import ForwardBudget
from worker.core.decisions.prepare import preparation
from worker.core.decisions.windows import WindowPlan
from worker.core.model import no_step
from worker.core.records import Prediction
from worker.inference.checkpoint import resolve
from worker.inference.loading import load
from worker.inference.reading import read_whole
from worker.inference.self_check import TEXTS
from worker.logs import configure
from worker.metrics import Metrics
from worker.runtime.forward import ForwardPasses, tokenise
from worker.settings import ModelSettings, PrepareSettings

SHAPES: Final = (
    *("bert", "distilbert", "roberta", "xlm-roberta", "electra", "modernbert", "gpt2"),
    "bundled",
)
COMBINATIONS: Final = ("mean", "max", "first", "length_weighted")
PRESETS: Final = ("none", "tweets")
_MAX_TOKENS, _STRIDE, _MOST = 64, 16, 20
_FORWARD_TOKENS: Final = 300  # of a pass, so that the windows of a text lie in several
_SEED: Final = 20
_MEGABYTE: Final = 1_000_000  # characters


class Call(NamedTuple):
    """Milliseconds of the tokenizer for one megabyte.

    Attributes:
        whole: of one call for the whole text.
        longest: of the longest call, if the text is read in pieces.
        calls: their number.
    """

    whole: float
    longest: float
    calls: int


def texts(number: int) -> list[str]:
    """Return posts of one to sixty sentences, with mentions and links."""
    chance = random.Random(_SEED)
    parts = [*TEXTS, "@someone", "https://example.org/a?b=c", "@", "It was fine."]
    return [" ".join(chance.choices(parts, k=chance.randint(1, 60))) for _ in range(number)]


def by_a_plain_loop(
    tokenizer: Any, model: Any, text: str, plan: WindowPlan | None
) -> list[list[float]]:
    """Return the probabilities [labels] by transformers alone, one window after another."""
    options: dict[str, Any] = {"truncation": True, "max_length": _MAX_TOKENS}
    if plan is None:
        windows = [tokenizer(text, **options)["input_ids"]]
    else:
        options |= {"stride": plan.stride, "return_overflowing_tokens": True}
        windows = tokenizer(text, **options)["input_ids"][: plan.max_windows]
    with torch.inference_mode():
        rows = torch.cat([model(torch.tensor([ids])).logits.softmax(-1) for ids in windows])
    weights = torch.tensor([float(len(ids)) for ids in windows])
    combined = {
        "mean": lambda: rows.mean(0),
        "max": lambda: rows.max(0).values / rows.max(0).values.sum(),
        "first": lambda: rows[0],
        "length_weighted": lambda: (weights[:, None] * rows).sum(0) / weights.sum(),
    }
    result: list[list[float]] = combined[plan.combine if plan else "first"]().tolist()
    return result


def as_published(text: str) -> str:
    """Prepare a text as the cards of cardiffnlp's tweet models do.

    https://huggingface.co/cardiffnlp/twitter-roberta-base-sentiment-latest
    """
    words = []
    for word in text.split(" "):
        named = "@user" if word.startswith("@") and len(word) > 1 else word
        words.append("http" if named.startswith("http") else named)
    return " ".join(words)


def differences(
    settings: ModelSettings, posts: Sequence[str]
) -> Iterator[tuple[str, str, float, int]]:
    """Yield preset, treatment, largest difference of a probability, and windows in all."""
    folder = resolve(settings).folder
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    labeller = _Ours(settings)
    plans = [None, *(WindowPlan(_STRIDE, _MOST, combine) for combine in COMBINATIONS)]
    for preset, plan in product(PRESETS, plans):
        ours = _prepared(preset, posts)
        theirs = [as_published(post) for post in posts] if preset == "tweets" else posts
        found = labeller.label(plan, ours)
        largest = max(
            abs(a - b)
            for prediction, text in zip(found, theirs, strict=True)
            for a, b in zip(
                prediction.probabilities,
                by_a_plain_loop(tokenizer, model, text, plan),
                strict=True,
            )
        )
        name = plan.combine if plan else "truncate"
        yield preset, name, largest, sum(prediction.windows for prediction in found)


def _prepared(preset: str, posts: Sequence[str]) -> list[str]:
    steps = preparation(PrepareSettings(preset=None if preset == "none" else preset))
    return [post if steps is None else steps.apply(post) or "" for post in posts]


class _Ours:
    """The worker's tokeniser and classifier, which are loaded once for all plans."""

    def __init__(self, settings: ModelSettings) -> None:
        model: Any = load(settings, _FORWARD_TOKENS)
        self._tokeniser, self._classifier = model

    def label(self, plan: WindowPlan | None, posts: Sequence[str]) -> list[Prediction]:
        """Return the predictions of the posts."""
        self._tokeniser.windows = plan
        card = self._classifier.card = replace(self._classifier.card, windows=plan)
        budget = ForwardBudget(_FORWARD_TOKENS, pads=card.pads)
        passes = ForwardPasses(self._classifier, budget, Metrics())
        inputs, _ = tokenise(self._tokeniser, posts, no_step)
        found = dict(result for part in inputs for result in passes.run(part, no_step))
        results = [found[position] for position in range(len(posts))]
        return [result for result in results if isinstance(result, Prediction)]


def calls_for_a_megabyte(tokenizer: Any) -> Call:
    """Time the tokenizer on a megabyte of words, whole and in pieces."""
    text = " ".join(TEXTS * (_MEGABYTE // len(" ".join(TEXTS)) + 1))[:_MEGABYTE]
    clock, times = SystemClock(), [0.0]
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # the file of some tokenizers sets both
    backend.no_padding()

    def encode(parts: list[str]) -> list[list[int]]:
        began = clock.monotonic()
        rows = backend.encode_batch_fast(parts, add_special_tokens=False)
        times.append((clock.monotonic() - began) * 1000)
        return [row.ids for row in rows]

    encode([text[:1000]])
    times.clear()
    (whole,) = encode([text])
    whole_ms = times.pop()
    if read_whole(encode, [text], no_step) != [whole]:
        raise SystemExit("the pieces give other ids than the whole")
    return Call(whole_ms, max(times), len(times))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.windows", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--posts", type=int, default=20, help="posts to label [20]")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, choices=SHAPES, metavar="SHAPE")
    args = parser.parse_args()
    configure("error", "plain")
    logging.disable_progress_bar()
    torch.set_num_threads(1)  # the models are too small for more
    posts, write = texts(args.posts), sys.stdout.write
    with tempfile.TemporaryDirectory() as home:
        folders = {shape: _folder(shape, Path(home)) for shape in args.shapes}
        write(_head("shape", "prepare.preset", "truncate", *COMBINATIONS, "windows"))
        for shape, name in folders.items():
            settings = ModelSettings(
                name=name, max_tokens=_MAX_TOKENS, dtype="float32", device="cpu", threads=1
            )
            write("".join(_rows(shape, list(differences(settings, posts)))))
            sys.stdout.flush()
        write("\n" + _head("tokenizer", "whole, ms", "longest call, ms", "calls"))
        for shape, name in folders.items():
            folder = resolve(ModelSettings(name=name)).folder
            call = calls_for_a_megabyte(AutoTokenizer.from_pretrained(folder))
            write(_row(shape, f"{call.whole:.0f}", f"{call.longest:.1f}", str(call.calls)))


def _folder(shape: str, home: Path) -> str:
    make: Callable[..., Path] = make_checkpoint
    return (
        shape if shape == "bundled" else str(make(home / shape, architecture=shape, max_tokens=64))
    )


def _rows(shape: str, found: Sequence[tuple[str, str, float, int]]) -> Iterator[str]:
    for preset in PRESETS:
        mine = [each for each in found if each[0] == preset]
        values = [f"{difference:.1e}" for _, _, difference, _ in mine]
        yield _row(shape, preset, *values, str(mine[-1][3]))


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |\n"


def _head(*cells: str) -> str:
    return _row(*cells) + _row(*("---" for _ in cells))


if __name__ == "__main__":
    main()
