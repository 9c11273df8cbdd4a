"""Counts dead letters by reason, hour, partition, worker version, exception or model.

Owns: the counts.
Thread: main, of `streamlabel dead-letters list`; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from worker.core.dead_letters import Letter, LetterContext

UNREADABLE: Final = "unreadable"  # a record without a document, as of another producer
_NO_EXCEPTION: Final = "no exception"
_NO_MODEL: Final = "no model"


def _hour(context: LetterContext) -> str:
    hour = datetime.fromtimestamp(context.failed_ms // 1000, UTC)
    return hour.strftime("%Y-%m-%dT%H:00Z")


_NAMES: Final[Mapping[str, Callable[[LetterContext], str]]] = {
    "reason": lambda context: context.reason,
    "hour": _hour,
    "version": lambda context: context.worker_version,
    "exception": lambda context: context.exception or _NO_EXCEPTION,
    "model": lambda context: context.model.name if context.model else _NO_MODEL,
}

# The ways to count dead letters; a partition needs no document.
GROUPINGS: Final = ("reason", "hour", "partition", "version", "exception", "model")


@dataclass(frozen=True, slots=True)
class LetterGroup:
    """Dead letters of one name.

    Attributes:
        share: part of all, 0 to 1.
        faults: (type of the exception, stack hash) -> number, the most frequent first.
    """

    name: str
    number: int
    share: float
    faults: Mapping[tuple[str, str], int]

    @property
    def document(self) -> dict[str, Any]:
        """The group as JSON has it."""
        faults = [
            {"exception": exception, "stack_hash": stack_hash, "number": number}
            for (exception, stack_hash), number in self.faults.items()
        ]
        share = round(self.share, 6)
        return {"name": self.name, "number": self.number, "share": share, "faults": faults}


class LetterCounts:
    """Counts dead letters as they are read.

    Args:
        by: one of `GROUPINGS`.

    Attributes:
        letters: number of them.
        states: how many have a whole, a cut or a null value, and how many are incomplete.
        attempts: number of replays -> number of dead letters.
        first_ms, last_ms: when the earliest and the latest of them failed; None without any.
    """

    def __init__(self, by: str) -> None:
        self.by, self.letters = by, 0
        self.states: Counter[str] = Counter()
        self.attempts: Counter[int] = Counter()
        self.first_ms: int | None = None
        self.last_ms: int | None = None
        self._numbers: Counter[str] = Counter()
        self._faults: dict[str, Counter[tuple[str, str]]] = defaultdict(Counter)

    def add(self, letter: Letter) -> None:
        """Count a dead letter."""
        context = letter.context
        name = str(letter.partition) if self.by == "partition" else self._name(context)
        self.letters += 1
        self._numbers[name] += 1
        self.attempts[letter.attempt] += 1
        if context is None:
            return
        self.states[context.value_state] += 1
        self.states["incomplete"] += not context.complete
        if context.stack_hash:
            self._faults[name][context.exception, context.stack_hash] += 1
        self._note(context.failed_ms)

    def _name(self, context: LetterContext | None) -> str:
        return UNREADABLE if context is None else _NAMES[self.by](context)

    def _note(self, failed_ms: int) -> None:
        self.first_ms = min(failed_ms, failed_ms if self.first_ms is None else self.first_ms)
        self.last_ms = max(failed_ms, failed_ms if self.last_ms is None else self.last_ms)

    @property
    def groups(self) -> list[LetterGroup]:
        """The groups: hours and partitions in their order, others by number."""
        pairs = self._numbers.most_common()
        if self.by == "hour":
            pairs.sort()
        elif self.by == "partition":
            pairs.sort(key=lambda pair: int(pair[0]))
        return [
            LetterGroup(name, n, n / self.letters, dict(self._faults[name].most_common()))
            for name, n in pairs
        ]
