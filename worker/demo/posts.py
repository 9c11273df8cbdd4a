"""Rated posts: short public texts with the mean valence that about twenty people gave each.

The texts come from the source distribution of vaderSentiment (MIT), which carries the data of Hutto
and Gilbert (ICWSM 2014). The data is not part of this repository; a download stays in the caller's
cache.

Owns: downloading that archive through pip, caching it, and reading the texts.
Thread: the caller's, before any worker thread starts.
Must not import: torch, transformers, kafka, any other package of worker but the ground floor.
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
    """The rated posts are unavailable: no network, no pip, or a download with other contents."""


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
    """Return every rated text of one kind, in file order.

    Downloads about 2.5 MB into `cache_dir` the first time. Raises SampleUnavailable.
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
    # Some texts of the study are escaped twice ("&amp;amp;").
    return html.unescape(html.unescape(text)).strip()


def _member(cache_dir: Path, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(_sdist(cache_dir))) as sdist:
        return _read(sdist, name)


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    member = archive.extractfile(name)
    if member is None:
        raise SampleUnavailable(f"{_SDIST.file} contains no file {name}")
    return member.read()


def _sdist(cache_dir: Path) -> bytes:
    """Return the archive's bytes, from the cache if its checksum is right."""
    cached = cache_dir / _SDIST.file
    if cached.is_file():
        content = cached.read_bytes()
        if hashlib.sha256(content).hexdigest() == _SDIST.sha256:
            return content
    return _fetch(cache_dir, cached)


def _fetch(cache_dir: Path, cached: Path) -> bytes:
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        # In the same file system as the final path, so that the rename is atomic.
        with tempfile.TemporaryDirectory(prefix=".posts-", dir=cache_dir) as scratch:
            _SDIST.fetch(Path(scratch)).replace(cached)
            return cached.read_bytes()
    except FetchFailed as error:
        raise SampleUnavailable(str(error)) from error
    except OSError as error:
        raise SampleUnavailable(f"can't write the rated posts to {cache_dir}: {error}") from error
