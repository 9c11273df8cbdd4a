"""Rounds of new texts, which all contenders label in shuffled turns.

Owns: the choice of texts and turns, and the figures of each contender.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from benchmarks.engines.compare import Difference, difference
from benchmarks.engines.contenders import REFERENCE, Contender
from benchmarks.engines.figures import EngineFigures, EngineTurn
from benchmarks.peers.environments import reason
from worker.errors import Fatal, SettingsError

ALL: Final = "all"
# Texts for the calibration of int8; they are not measured.
CALIBRATION: Final = 400
_LONE_TEXTS: Final = 10
_GAP_S: Final = 0.05  # before a lone text
_LOAD_S: Final = 600.0  # the first load converts and quantises
_TURN_S: Final = 300.0

Say = Callable[[str], None]


class Asked(Protocol):
    """A process that answers messages."""

    def ask(self, message: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Return the answer. Raises Fatal."""
        ...


@dataclass
class Entrant:
    """A contender with its process and its figures.

    Attributes:
        turns: window -> a turn for each round.
    """

    contender: Contender
    child: Asked | None
    say: Say
    failed: str | None = None
    runs_as: str = ""
    versions: str = ""
    turns: dict[str, list[EngineTurn]] = field(default_factory=dict)
    alone_ms: list[float] = field(default_factory=list)

    def load(self, options: Mapping[str, Any]) -> None:
        """Load the model, which counts in no figure."""
        chosen = {"dtype": self.contender.dtype, "variant": self.contender.variant}
        if answer := self.ask({"do": "load", "options": {**options, **chosen}}, _LOAD_S):
            self.runs_as, self.versions = answer["runs_as"], answer["versions"]

    def ask(self, message: dict[str, Any], timeout_s: float = _TURN_S) -> dict[str, Any] | None:
        """Return the answer, or None if the contender has failed, now or before."""
        if self.failed or self.child is None:
            return None
        try:
            return self.child.ask(message, timeout_s)
        except Fatal as error:
            self.failed = reason(str(error))
            self.say(f"{self.contender.name}: {error}")
            return None

    def figures(self) -> EngineFigures:
        """Return the row of the results."""
        return EngineFigures(
            name=self.contender.name,
            engine=self.contender.engine,
            dtype=self.contender.dtype,
            runs_as=self.runs_as,
            versions=self.versions,
            turns={window: tuple(self.turns[window]) for window in by_size(self.turns)},
            alone_ms=tuple(self.alone_ms),
            failed=self.failed,
        )


def texts_of(pool: Sequence[str], number: int, size: int) -> list[str]:
    """Return the texts of a round: new ones until the pool is used up, then in another order.

    Raises SettingsError if the pool is smaller than a round.
    """
    if size > len(pool):
        raise SettingsError(
            f"--texts {size} exceeds the {len(pool)} texts that there are: give {len(pool)} or less"
        )
    cycle, index = divmod(number, len(pool) // size)
    shuffled = random.Random(f"texts {cycle}").sample(pool, len(pool))
    return shuffled[index * size : (index + 1) * size]


def windows_of(sizes: Sequence[int], texts: int) -> dict[str, int]:
    """Return the windows smaller than a round, by name, and the one of all its texts."""
    return {str(size): size for size in sizes if size < texts} | {ALL: texts}


def by_size(windows: Iterable[str]) -> list[str]:
    """Return the names of windows from the smallest to all texts."""
    return sorted(windows, key=lambda window: (window == ALL, len(window), window))


class Rounds:
    """Runs rounds of turns.

    Args:
        entrants: the contenders, loaded.
        windows: name -> texts of a window.
        sleep: waits between turns, so that the threads of the last one stop spinning.
    """

    def __init__(
        self,
        entrants: Sequence[Entrant],
        windows: Mapping[str, int],
        sleep: Callable[[float], None],
    ) -> None:
        self._entrants, self._windows, self._sleep = entrants, windows, sleep

    def warm_up(self, texts: Sequence[str]) -> None:
        """Label texts that are not measured, in the first window."""
        window = min(self._windows.values())
        for entrant in self._entrants:
            entrant.ask({"do": "label", "texts": list(texts), "window": window})

    def run(self, number: int, texts: Sequence[str]) -> None:
        """Run a round: every entrant in every window, and each with lone texts."""
        answers: list[tuple[Entrant, str, dict[str, Any]]] = []
        for entrant, window in self._turns(number):
            self._sleep(_GAP_S)
            if not window:
                message = {"do": "alone", "texts": list(texts[:_LONE_TEXTS]), "gap_s": _GAP_S}
                if answer := entrant.ask(message):
                    seconds = sorted(answer["seconds"])
                    entrant.alone_ms.append(seconds[len(seconds) // 2] * 1000)
                continue
            size = self._windows[window]
            if answer := entrant.ask({"do": "label", "texts": list(texts), "window": size}):
                rate = len(texts) / answer["seconds"]
                entrant.say(f"{number + 1}. {entrant.contender.name}, {window}: {rate:.1f} texts/s")
                answers.append((entrant, window, answer))
        self._note(answers, len(texts))

    def _turns(self, number: int) -> list[tuple[Entrant, str]]:
        """Return the turns of a round, shuffled; those of lone texts have no window."""
        turns = [
            (entrant, window)
            for entrant in self._entrants
            for window in (*(self._windows if entrant.contender.windows else (ALL,)), "")
        ]
        random.Random(f"turns {number}").shuffle(turns)
        return turns

    def _note(self, answers: Sequence[tuple[Entrant, str, dict[str, Any]]], texts: int) -> None:
        reference = next(
            (
                answer["probabilities"]
                for entrant, _, answer in answers
                if entrant.contender == REFERENCE
            ),
            None,
        )
        for entrant, window, answer in answers:
            other: Difference | None = None
            if reference is not None:
                other = difference(reference, answer["probabilities"])
            turn = EngineTurn(
                texts_per_s=texts / answer["seconds"],
                cpu_us=answer["cpu_s"] / texts * 1e6,
                flips=other.flips if other else None,
                mean_dp=other.mean if other else None,
                max_dp=other.largest if other else None,
            )
            entrant.turns.setdefault(window, []).append(turn)
