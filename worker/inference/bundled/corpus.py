"""The texts that the bundled model is trained and evaluated on.

Owns: the fixed split of the rated texts, the texts that must never be trained on, and the soft
    target of a valence.
Thread: main, of the training and evaluation programs; never in a worker.
Must not import: torch, transformers, kafka.
"""

import hashlib
import math
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from worker.demo.posts import KINDS, Kind, RatedText, load_lexicon, load_rated

Part = Literal["train", "dev", "test"]
Source = Kind | Literal["lexicon"]

NEVER_TRAIN_ON: Final = Path(__file__).with_name("never_train_on.txt")

# A valence of 2 ("clearly good") becomes 0.96, 0.25 ("nearly neutral") becomes 0.60.
_STEEPNESS: Final = 1.6

_TEST_PERCENT: Final = 10
_DEV_PERCENT: Final = 5

_SENTENCE_END: Final = re.compile(r"(?<=[.!?])\s+")
_TWEET_WRAPPING: Final = re.compile(r"\brt\b|@\w+|https?://\S+", re.IGNORECASE)
_TOKENISATION: Final = (
    (re.compile(r"n't\b", re.IGNORECASE), " n't"),
    (re.compile(r"(?<=\w)('s|'re|'ve|'ll|'d|'m)\b", re.IGNORECASE), r" \1"),
    (re.compile(r"\("), " -lrb- "),
    (re.compile(r"\)"), " -rrb- "),
    (re.compile(r"(\.\.\.|--|[,;:!?\"]|(?<!\.)\.(?=\s|$)|'')"), r" \1 "),
)


@dataclass(frozen=True, slots=True)
class Example:
    """One rated text and its source; `valence` ranges from -4 to 4."""

    text: str
    valence: float
    source: Source


@dataclass(frozen=True, slots=True)
class Corpus:
    """The rated texts, in a fixed split.

    Attributes:
        train: texts to train on.
        dev: texts to choose the recipe by.
        test: texts to report figures on.
        judged: texts of the exclusion list, which are in no other part.
        related: texts that contain a sentence of the exclusion list, which are in no other part.
    """

    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    judged: tuple[Example, ...]
    related: tuple[Example, ...]


def load(cache_dir: Path, exclude: Path = NEVER_TRAIN_ON) -> Corpus:
    """Download, split and filter every source. Raises SampleUnavailable, OSError for `exclude`."""
    excluded = frozenset(exclude.read_text(encoding="ascii").split())
    parts: dict[str, list[Example]] = {
        name: [] for name in ("train", "dev", "test", "judged", "related")
    }
    for kind in KINDS:
        for rated in load_rated(kind, cache_dir):
            name = _exclusion(rated.text, excluded) or part_of(rated.text)
            parts[name].append(_example(rated, kind))
    # Single words can't leak a held-out text, so the lexicon is not split.
    parts["train"] += (_example(rated, "lexicon") for rated in load_lexicon(cache_dir))
    return Corpus(**{name: tuple(examples) for name, examples in parts.items()})


def part_of(text: str) -> Part:
    """Return a text's part by a hash of its content, so that repeats and retweets stay together."""
    draw = int(fingerprint(_TWEET_WRAPPING.sub(" ", text)), 16) % 100
    if draw < _TEST_PERCENT:
        return "test"
    return "dev" if draw < _TEST_PERCENT + _DEV_PERCENT else "train"


def target(valence: float) -> float:
    """Return the probability of POSITIVE that the model is trained towards for a mean valence."""
    return 1.0 / (1.0 + math.exp(-_STEEPNESS * valence))


def fingerprint(text: str) -> str:
    """Return 16 hex digits of a hash over the letters a-z and the digits of the lower-case text."""
    kept = re.sub(r"[^a-z0-9]", "", text.lower())
    return hashlib.sha256(kept.encode("ascii")).hexdigest()[:16]


def _exclusion(text: str, excluded: frozenset[str]) -> Literal["judged", "related"] | None:
    if fingerprint(text) in excluded:
        return "judged"
    return "related" if any(fingerprint(part) in excluded for part in _variants(text)) else None


def _variants(text: str) -> Iterator[str]:
    """Yield the text without accents, and every run of whole sentences within it."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii")
    yield plain
    for form in (text, plain):
        sentences = _SENTENCE_END.split(form)
        for first in range(len(sentences)):
            for last in range(first + 1, len(sentences) + 1):
                yield " ".join(sentences[first:last])


def _example(rated: RatedText, source: Source) -> Example:
    return Example(text=rated.text, valence=rated.valence, source=source)


def by_kind(examples: Iterable[Example]) -> dict[Kind, list[Example]]:
    """Return the examples of each kind of text, in their order, without the lexicon."""
    listed = list(examples)
    return {kind: [example for example in listed if example.source == kind] for kind in KINDS}


def pretokenised(text: str) -> str:
    """Write the text as corpora of parsed sentences do: lower case, separate tokens, `do n't`."""
    for pattern, replacement in _TOKENISATION:
        text = pattern.sub(replacement, text)
    return " ".join(text.lower().split())
