"""Rated posts: short public texts with the mean valence that about twenty people gave each.

Owns: the source distribution of vaderSentiment (MIT), which carries the data of Hutto and Gilbert
(ICWSM 2014): fetching it, caching it, and reading the texts out of it.
Runs on: the caller's thread, before any worker thread starts. May touch the network, through pip.
Must not import: torch, transformers, kafka, or any other room.

None of the data is part of this repository; what is fetched stays in the caller's cache.
"""

import csv
import hashlib
import html
import io
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from worker.packages import FetchFailed, Package

Kind = Literal["tweets", "movies", "amazon", "nyt"]

KINDS: Final[tuple[Kind, ...]] = ("tweets", "movies", "amazon", "nyt")

_SDIST: Final = Package(
    "vaderSentiment==3.3.2",
    "vaderSentiment-3.3.2.tar.gz",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    timeout=180.0,
)
_ROOT: Final = "vaderSentiment-3.3.2"
_STUDY: Final = f"{_ROOT}/additional_resources/hutto_ICWSM_2014.tar.gz"
_LEXICON: Final = f"{_ROOT}/vaderSentiment/vader_lexicon.txt"
_TABLE: Final[dict[Kind, str]] = {
    "tweets": "tweets_GroundTruth.txt",
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "amazon": "amazonReviewSnippets_GroundTruth.txt",
    "nyt": "nytEditorialSnippets_GroundTruth.txt",
}


class SampleUnavailable(Exception):
    """The rated posts can't be had here: no network, no pip, or a download that is not the data."""


@dataclass(frozen=True, slots=True)
class RatedText:
    """One text and how people rated it.

    `id` is unique within its kind. `valence` is the mean rating, from -4 (extremely negative) to
    4 (extremely positive).
    """

    id: str
    text: str
    valence: float


def load_rated(kind: Kind, cache_dir: Path) -> list[RatedText]:
    """Return every rated text of one kind, in the order of its file.

    Fetches about 2.5 MB into `cache_dir` the first time. Raises SampleUnavailable.
    """
    with tarfile.open(fileobj=io.BytesIO(_member(cache_dir, _STUDY))) as study:
        table = _read(study, f"hutto_ICWSM_2014/{_TABLE[kind]}")
    return [
        RatedText(id=f"{kind}-{row[0]}", text=_unescape(row[2]), valence=float(row[1]))
        for row in _rows(table)
    ]


def load_lexicon(cache_dir: Path) -> list[RatedText]:
    """Return the rated words and emoticons of the same study. Raises SampleUnavailable."""
    return [
        RatedText(id=f"lexicon-{number}", text=row[0], valence=float(row[1]))
        for number, row in enumerate(_rows(_member(cache_dir, _LEXICON)))
    ]


def _rows(table: bytes) -> Iterator[list[str]]:
    text = io.StringIO(table.decode("utf-8"), newline="")
    return (row for row in csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE) if row)


def _unescape(text: str) -> str:
    # Some texts were escaped twice on their way into the study ("&amp;amp;").
    return html.unescape(html.unescape(text)).strip()


def _member(cache_dir: Path, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(_sdist(cache_dir))) as sdist:
        return _read(sdist, name)


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise SampleUnavailable(f"{name} is not a file in {_SDIST.file}")
    return member.read()


def _sdist(cache_dir: Path) -> bytes:
    """The archive's bytes, from the cache where they are there and right."""
    cached = cache_dir / _SDIST.file
    if cached.is_file():
        content = cached.read_bytes()
        if hashlib.sha256(content).hexdigest() == _SDIST.sha256:
            return content
    return _fetch(cache_dir, cached)


def _fetch(cache_dir: Path, cached: Path) -> bytes:
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        # Beside its final place, so that the rename stays in one file system and is atomic.
        with tempfile.TemporaryDirectory(prefix=".posts-", dir=cache_dir) as scratch:
            _SDIST.fetch(Path(scratch)).replace(cached)
            return cached.read_bytes()
    except FetchFailed as error:
        raise SampleUnavailable(str(error)) from error
    except OSError as error:
        raise SampleUnavailable(f"the rated posts can't be kept in {cache_dir}: {error}") from error
