"""Measures the tokeniser by number of threads: it must keep up with a GPU.

The Rust tokenizer reads its number of threads once, so each number is measured in its own process.

Owns: the figures of the tokeniser.
Thread: main.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

from benchmarks.gpu.sizes import Sizes
from benchmarks.gpu.vocabulary import tokenizer_folder
from worker.bench.texts import repeated
from worker.clock import SystemClock
from worker.demo.fallback_posts import fallback_posts
from worker.settings import child_environment

_ROUNDS: Final = 5


def measure(sizes: Sizes, folder: Path) -> list[dict[str, Any]]:
    """Return texts a second for each number of threads."""
    vocabulary = tokenizer_folder(folder / "tokenizer")
    return [_in_a_process(threads, sizes.texts, vocabulary) for threads in sizes.threads]


def _in_a_process(threads: int, texts: int, vocabulary: Path) -> dict[str, Any]:
    environ = child_environment(RAYON_NUM_THREADS=str(threads), TOKENIZERS_PARALLELISM="true")
    command = [sys.executable, "-m", "benchmarks.gpu.feeding", str(texts), str(vocabulary)]
    process = subprocess.run(command, env=environ, check=True, stdout=subprocess.PIPE)
    figures: dict[str, Any] = json.loads(process.stdout)
    return {"threads": threads} | figures


def main(number: int, vocabulary: Path) -> None:
    """Print texts a second for windows of `number` texts."""
    from transformers import AutoTokenizer

    from worker.inference.tokeniser import TransformersTokeniser

    tokeniser = TransformersTokeniser(AutoTokenizer.from_pretrained(vocabulary), max_tokens=512)
    posts = [post.text for post in fallback_posts()]
    texts = [f"{text} {n}" for n, text in enumerate(repeated(posts, number))]
    clock, seconds = SystemClock(), []
    tokeniser.tokenise(texts)
    for _ in range(_ROUNDS):
        started = clock.monotonic()
        (model_input,) = tokeniser.tokenise(texts)
        seconds.append(clock.monotonic() - started)
    rate = number / statistics.median(seconds)
    print(json.dumps({"texts_per_s": rate, "tokens_per_text": model_input.tokens / number}))


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
