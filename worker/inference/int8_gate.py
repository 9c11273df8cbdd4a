"""Decides by texts whether a model may compute in 8-bit integers, and which of its layers.

Half of the texts calibrate the layers, the other half judge them against float32.

Owns: the texts of the judgement, its bounds, and the release of layers.
Thread: load, before a record is read.
Must not import: transformers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from worker.clock import Clock
from worker.core.records import Activation
from worker.errors import SettingsError
from worker.inference.classifier import Forward, scores
from worker.inference.int8 import wrap
from worker.inference.self_check import LONGEST, TEXTS, Rows
from worker.inference.tokeniser import TransformersTokeniser
from worker.logs import get_logger

log = get_logger(__name__)

# The least share of texts that keep their label, and the largest mean change of a probability.
AGREEMENT, MEAN = 0.993, 0.01
# Fewest texts of a file: half of them judge, and of 150 one may change its label.
FEWEST = 300
# Texts that calibrate and that judge, at most, and seconds of each run in float32.
_MOST_CALIBRATING, _MOST_JUDGING, _TIME_LIMIT = 256, 1_024, 8.0
# Texts that rank the layers, and seconds for the ranking, and for all attempts to release layers.
_RANKING, _RANKING_LIMIT, _RELEASE_LIMIT = 64, 10.0, 20.0
# With a larger share of the layers released, there is little to gain.
_MOST_RELEASED = 0.5
_TOGETHER = 32  # texts of a pass
_TRIES = 5  # of a pass that is timed
_BOUND = 0.05  # one minus the confidence in the bound that is logged


def read_calibration_texts(path: Path) -> list[str]:
    """Return the lines of the file that are not blank.

    Raises:
        SettingsError: the file can't be read, or has too few texts.
    """
    try:
        lines = path.expanduser().read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"model.calibration_texts: can't read {path} ({error}); give a UTF-8 file with one text "
            "a line"
        ) from None
    texts = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if len(texts) < FEWEST:
        raise SettingsError(
            f"model.calibration_texts: {path} has {len(texts)} different texts, and at least "
            f"{FEWEST} are needed to judge int8: add texts, or leave it out"
        )
    return texts


def built_in_texts() -> list[str]:
    """Return the texts of the self-check, alone and in pairs, in a mixed order."""
    pairs = [f"{one} {other}" for one in TEXTS for other in TEXTS if one != other]
    texts = [*TEXTS, *pairs]
    # A step without a common divisor visits each once.
    return [texts[(index * 241) % len(texts)] for index in range(len(texts))]


def rows_to_judge_by(path: Path | None, tokenizer: Any, longest: int | None) -> Rows:
    """Return the ids of the file's texts, or of built-in ones, in their order.

    Args:
        path: the file; None for built-in texts.
        tokenizer: the model's.
        longest: tokens of the longest text that the model takes; None if there is no limit.

    Raises:
        SettingsError: the file can't be read, or has too few texts.
    """
    if path is None:
        log.warning(
            "int8 is judged by built-in texts, which may differ from yours: set "
            "model.calibration_texts to a file of your texts, one a line"
        )
    texts = read_calibration_texts(path) if path else built_in_texts()
    tokeniser = TransformersTokeniser(tokenizer, max_tokens=min(longest or LONGEST, LONGEST))
    inputs = list(tokeniser.tokenise(texts))
    numbered = [pair for part in inputs for pair in zip(part.positions, part.ids, strict=True)]
    return [ids for _, ids in sorted(numbered)]


@dataclass(frozen=True, slots=True)
class Int8Verdict:
    """How far probabilities differ from those in float32.

    Attributes:
        texts: number of texts.
        agreement: share of texts with the same label, or the same labels above 0.5.
        mean: mean change of a probability.
        largest: largest change of a probability.
    """

    texts: int
    agreement: float
    mean: float
    largest: float

    @classmethod
    def of(cls, table: Tensor, reference: Tensor, activation: Activation) -> Int8Verdict:
        """Compare probabilities [texts, labels]."""
        changes = (table - reference).abs()
        same = _labels(table, activation) == _labels(reference, activation)
        agreement = float(same.flatten(1).all(1).double().mean())
        return cls(len(table), agreement, float(changes.mean()), float(changes.max()))

    @property
    def passes(self) -> bool:
        """True if the differences are within the bounds; False for NaN."""
        return self.agreement >= AGREEMENT and self.mean <= MEAN

    @property
    def agreement_at_least(self) -> float:
        """The agreement on all such texts, at least, with 95 % confidence.

        The lower limit of Clopper and Pearson (1934), found by bisection.
        """
        wrong = self.texts - round(self.agreement * self.texts)
        low, high = 0.0, 1.0
        for _ in range(40):
            middle = (low + high) / 2
            if _at_most(wrong, self.texts, 1 - middle) < _BOUND:
                low = middle
            else:
                high = middle
        return low

    def facts(self) -> dict[str, float]:
        """Return the figures for the log."""
        return {
            "texts": self.texts,
            "agreement": round(self.agreement, 4),
            "agreement_at_least": round(self.agreement_at_least, 4),
            "mean_difference": round(self.mean, 5),
            "largest_difference": round(self.largest, 4),
        }


def _at_most(wrong: int, texts: int, share: float) -> float:
    """Return the probability of at most `wrong` failures of `texts`, each with this probability."""
    return sum(
        math.comb(texts, number) * share**number * (1 - share) ** (texts - number)
        for number in range(wrong + 1)
    )


def _labels(table: Tensor, activation: Activation) -> Tensor:
    return table.argmax(1, keepdim=True) if activation == "softmax" else table > 0.5


@dataclass(frozen=True, slots=True)
class _Labelled:
    """Texts and their probabilities in float32."""

    rows: Rows
    table: Tensor


class Gate:
    """Quantises a model in place, as far as its texts allow.

    Args:
        forward: runs the model, which computes in float32.
        model: the module that it runs.
        rows: ids of the texts, in any order.
        activation: turns outputs into probabilities.
        wide: number type of layers that stay wide.
        clock: bounds the time.
    """

    def __init__(
        self,
        forward: Forward,
        model: nn.Module,
        rows: Rows,
        activation: Activation,
        *,
        wide: torch.dtype,
        clock: Clock,
    ) -> None:
        self._forward, self._activation, self._wide, self._clock = forward, activation, wide, clock
        self._judging = self._label(rows[1::2][:_MOST_JUDGING])
        layers = wrap(model)
        calibrating = self._label(rows[0::2][:_MOST_CALIBRATING])
        self._ranking = _Labelled(calibrating.rows[:_RANKING], calibrating.table[:_RANKING])
        self._layers = {name: layer for name, layer in layers.items() if layer.calibrated}
        self._wide_layers = [name for name, layer in layers.items() if not layer.calibrated]
        self._total = len(layers)

    def quantise(self) -> bool:
        """Quantise all layers but those that must stay wide; return False if too many must.

        The pass then states the number type that it computes in.
        """
        for layer in self._layers.values():
            layer.quantise()
        verdict = self._verdict(self._judging)
        if not verdict.passes:
            log.info("int8 differs too much from float32: releasing layers", **verdict.facts())
            verdict = self._release(verdict)
        few = len(self._wide_layers) <= _MOST_RELEASED * self._total
        facts = verdict.facts() | {"layers": self._total, "wide_layers": len(self._wide_layers)}
        if not (verdict.passes and few and self._layers):
            log.warning(
                "int8 not used: it differs too much from float32 on the texts that judge it",
                least_agreement=AGREEMENT,
                most_mean_difference=MEAN,
                **facts,
            )
            return False
        for layer in self._layers.values():
            layer.settle()
        type_of_others = str(self._wide).removeprefix("torch.")
        log.info(
            "int8 agrees with float32", **facts, left_in=type_of_others, left=self._wide_layers
        )
        wide = f" ({len(self._wide_layers)} of {self._total} layers {type_of_others})"
        self._forward.dtype = "int8" + (wide if self._wide_layers else "")
        return True

    def _release(self, verdict: Int8Verdict) -> Int8Verdict:
        """Release the layer that causes the largest error, then the next, until the rest passes."""
        until = self._clock.monotonic() + _RELEASE_LIMIT
        for name in self._by_error():
            if (
                verdict.passes
                or len(self._wide_layers) >= _MOST_RELEASED * self._total
                or self._clock.monotonic() > until
            ):
                break
            self._layers[name].release(self._wide)
            self._wide_layers.append(name)
            verdict = self._verdict(self._judging)
        return verdict

    def _by_error(self) -> list[str]:
        """Return the layers' names, first the one without which the others err least."""
        until = self._clock.monotonic() + _RANKING_LIMIT
        errors: dict[str, float] = {}
        for name, layer in self._layers.items():
            if self._clock.monotonic() > until:
                break
            with layer.released():
                error = self._verdict(self._ranking).mean
            errors[name] = math.inf if math.isnan(error) else error
        return sorted(errors, key=errors.__getitem__)

    def _verdict(self, labelled: _Labelled) -> Int8Verdict:
        table = torch.cat([self._scores(part) for part in _parts(labelled.rows)])
        return Int8Verdict.of(table, labelled.table, self._activation)

    def _label(self, rows: Rows) -> _Labelled:
        """Label the rows, or fewer if the model is slow."""
        until = self._clock.monotonic() + _TIME_LIMIT
        tables: list[Tensor] = []
        for part in _parts(rows):
            tables.append(self._scores(part))
            if self._clock.monotonic() > until:
                break
        table = torch.cat(tables)
        return _Labelled(rows[: len(table)], table)

    def _scores(self, rows: Rows) -> Tensor:
        """Return the probabilities of rows in any order; a pass takes the longest first."""
        order = sorted(range(len(rows)), key=lambda row: len(rows[row]), reverse=True)
        table = scores(self._forward, [rows[row] for row in order], self._activation)
        return table[torch.tensor(order).argsort()]


def _parts(rows: Rows) -> Iterator[Rows]:
    return (rows[start : start + _TOGETHER] for start in range(0, len(rows), _TOGETHER))


def seconds_of(forward: Forward, rows: Rows, clock: Clock) -> float:
    """Return the seconds that a pass of some of the rows takes, the best of a few tries."""
    part = sorted(rows[:_TOGETHER], key=len, reverse=True)
    times = []
    for _ in range(_TRIES):
        began = clock.monotonic()
        with torch.inference_mode():
            forward(part)
        times.append(clock.monotonic() - began)
    return min(times)
