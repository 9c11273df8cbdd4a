"""The topology of a run with decisions: two models, windows, and three routes.

Every kind of outcome occurs: results in two topics, copies beside them, and notes of filtered
records. The harness knows from a record's number what becomes of it; only the label that a copy
depends on is the model's, and the audit knows the copies from the results.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from tests.chaos.values import JsonValues
from tests.support.models import make_checkpoint
from worker.settings import options
from worker.settings.toml_values import inline

Kind = Literal["spam", "news", "post"]

SECOND_LABELS: Final = ("calm", "angry", "glad")  # of the second model
_KINDS: Final[tuple[Kind, ...]] = ("spam", "news", "post", "post", "post")
_LONG: Final = 9  # each ninth text needs several windows
_LONG_WORDS: Final = 150


@dataclass(frozen=True)
class Routed:
    """The topics that the routes of a run need, beside its others.

    Attributes:
        news: results of one kind of records.
        copies: copies of results with one label.
        notes: notes of filtered records.
    """

    news: str
    copies: str
    notes: str

    @classmethod
    def of(cls, group: str) -> Routed:
        """Return the topics of a group."""
        return cls(f"{group}.news", f"{group}.copies", f"{group}.filtered")

    @property
    def outcomes(self) -> tuple[str, ...]:
        """The topics that have one record for each input record of theirs."""
        return self.news, self.notes

    @property
    def topics(self) -> tuple[str, ...]:
        """All of them."""
        return self.news, self.copies, self.notes

    @property
    def routes(self) -> Mapping[str, Any]:
        """The settings that a worker and an audit share, by path."""
        routes = [
            {"name": "spam", "path": "kind", "in": ["spam"], "drop": True},
            {
                "name": "copy",
                "model": "first",
                "label": ["POSITIVE"],
                "topic": self.copies,
                "also": True,
            },
            {"name": "news", "path": "kind", "in": ["news"], "topic": self.news},
        ]
        return {"routes": inline(routes), "output.filtered_topic": self.notes}


def models(folder: Path) -> Mapping[str, Any]:
    """Make two tiny models; return the settings of both, and of windows, by path.

    The second applies to some records only, and a record may go without its labels.
    """
    first = make_checkpoint(folder / "first", seed=4)  # most texts are POSITIVE, not all
    second = make_checkpoint(folder / "second", labels=SECOND_LABELS, seed=3)
    both = {
        "first": {"name": str(first), "engine": "packed"},
        "second": {
            "name": str(second),
            "engine": "packed",
            "required": False,
            "when": {"path": "kind", "in": ["news", "spam"]},
        },
    }
    return {
        "models": inline(both),
        "input.overflow": "windows",
        "input.stride": 16,
        "input.max_windows": 3,
    }


def flags_for(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the flags of settings by path, for a command line."""
    flags = {option.path: option.flag for option in options()}
    return tuple(f"{flags[path]}={value}" for path, value in settings.items())


def kind_of(number: int) -> Kind:
    """Return the kind of the record with this number."""
    return _KINDS[number % len(_KINDS)]


def text_of(number: int) -> str:
    """Return the text of the record with this number; some need several windows."""
    words = _LONG_WORDS if number % _LONG == 0 else 1 + number % 12
    return f"post {number} " + " ".join(f"word{(number * 7 + n) % 97}" for n in range(words))


class KindsOfValues(JsonValues):
    """JSON whose objects have the member that the routes look at."""

    def text(self, number: int, text: str) -> bytes:
        return json.dumps({"id": number, "text": text, "kind": kind_of(number)}).encode()
