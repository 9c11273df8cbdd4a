"""Measures the engine alone, in a process of its own: `python -m worker.bench.engine`.

`streamlabel bench` starts it, so that the process that sends and reads texts stays free of torch.
It prints one JSON object: `{"model": ..., "engine": ...}`, in the form of `worker.bench.figures`.

Owns: the comparisons, run in turns, and their medians.
Thread: main.
Must not import: kafka.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from worker import logs
from worker.bench.arrivals import ALONE_GAP_S
from worker.bench.baselines import MatrixProducts, PlainPipeline, threads
from worker.bench.figures import EnginePoint, EngineResult, ModelInfo, Roofline
from worker.clock import Clock, SystemClock
from worker.core.budget import ForwardBudget
from worker.core.model import Classifier
from worker.core.records import ModelInput
from worker.errors import OutOfMemory, StreamlabelError
from worker.inference.loading import load as load_model
from worker.settings import Settings, load

# Multiples of the budget in force that are measured too, with windows in proportion.
_SWEEP: Final = (0.25, 0.5, 2.0, 4.0)
# Enough rows for the best speed of a matrix product; more only take longer.
_PRODUCT_ROWS: Final = 2_048
_SINGLE_TEXTS: Final = 20


@dataclass(frozen=True)
class _CutTexts:
    """The texts, cut into forward passes for one budget."""

    forward_tokens: int
    window: int
    passes: Sequence[ModelInput]

    def run(self, classifier: Classifier) -> None:
        for model_input in self.passes:
            classifier.predict(model_input)

    def point(self, texts: int, seconds: float) -> EnginePoint:
        rate = texts / seconds
        return EnginePoint(
            forward_tokens=self.forward_tokens,
            window=self.window,
            texts_per_s=rate,
            tokens_per_s=sum(model_input.tokens for model_input in self.passes) / seconds,
            window_s=self.window / rate,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and return 0, or 1 if the model can't be loaded."""
    parser = argparse.ArgumentParser(
        prog="bench_engine", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, help="a JSON array")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--sweep", action="store_true")
    args = parser.parse_args(arguments)
    logs.configure("warning", "plain")
    texts: list[str] = json.loads(args.texts.read_text(encoding="utf-8"))
    try:
        bench = _EngineBench(load({}, args.config, environ={}).settings, texts, SystemClock())
        model, engine = bench.run(args.rounds, sweep=args.sweep)
    except StreamlabelError as error:
        print(f"streamlabel bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"model": model.model_dump(), "engine": engine.model_dump()}), flush=True)
    return 0


class _EngineBench:
    def __init__(self, settings: Settings, texts: Sequence[str], clock: Clock) -> None:
        self._settings, self._texts, self._clock = settings, texts, clock
        batch = settings.batch
        self._tokeniser, self._classifier = load_model(settings.model, batch.forward_tokens)
        self._classifier.warm_up()
        self._card = self._classifier.card
        self._plain = PlainPipeline(settings.model, self._card.device, self._card.max_tokens)
        self._plain.label(self._texts[:1])  # warm-up
        self._arithmetic = self._plain.arithmetic()
        window = min(batch.max_records, len(texts))
        self._budget = self._card.forward_tokens  # the setting, or the warm-up's choice
        self._configured = self._cut(self._budget, window)

    def run(self, rounds: int, *, sweep: bool) -> tuple[ModelInfo, EngineResult]:
        cuts = [self._configured, *(self._others() if sweep else ())]
        products = self._products()
        plain, *ours, tokenise = self._seconds(
            rounds,
            [
                lambda: self._plain.label(self._texts),
                *(self._runner(cut) for cut in cuts),
                lambda: self._cut(self._budget, self._configured.window),
            ],
            products,
        )
        points = [
            cut.point(len(self._texts), seconds) for cut, seconds in zip(cuts, ours, strict=True)
        ]
        engine = EngineResult(
            texts=len(self._texts),
            rounds=rounds,
            configured=points[0],
            sweep=tuple(sorted(points[1:], key=lambda point: point.forward_tokens)),
            pipeline_texts_per_s=len(self._texts) / plain,
            to_pipeline=plain / ours[0],
            tokenise_texts_per_s=len(self._texts) / tokenise,
            roofline=self._roofline(products, ours[0]),
            one_text_s=self._single_text_s(),
        )
        return self._model_info(), engine

    def _seconds(
        self,
        rounds: int,
        contenders: Sequence[Callable[[], object]],
        products: _Products | None,
    ) -> list[float]:
        """Return each contender's median seconds.

        The contenders take turns, so that a drift of the machine's speed affects all of them.
        """
        times: list[list[float]] = [[] for _ in contenders]
        for _ in range(rounds):
            for contender, seconds in zip(contenders, times, strict=True):
                started = self._clock.monotonic()
                contender()
                seconds.append(self._clock.monotonic() - started)
            if products:
                products.measure(self._clock)
        return [statistics.median(seconds) for seconds in times]

    def _runner(self, cut: _CutTexts) -> Callable[[], None]:
        return lambda: cut.run(self._classifier)

    def _cut(self, forward_tokens: int, window: int) -> _CutTexts:
        budget = ForwardBudget(forward_tokens, pads=self._card.pads)
        windows = (self._texts[n : n + window] for n in range(0, len(self._texts), window))
        whole = (part for texts in windows for part in self._tokeniser.tokenise(texts))
        passes = [part for model_input in whole for part in budget.cut(model_input)]
        return _CutTexts(forward_tokens, window, passes)

    def _others(self) -> list[_CutTexts]:
        """Return the texts cut for other budgets that fit the memory and the longest text."""
        batch, cuts = self._settings.batch, []
        for factor in _SWEEP:
            budget = int(self._budget * factor)
            window = max(1, int(batch.max_records * factor))
            if budget < self._card.max_tokens or window > len(self._texts):
                continue
            cut = self._cut(budget, window)
            try:
                self._classifier.predict(max(cut.passes, key=lambda part: part.padded_tokens))
            except OutOfMemory:
                continue
            cuts.append(cut)
        return cuts

    def _products(self) -> _Products | None:
        rows = min(_PRODUCT_ROWS, self._budget)
        try:
            card = self._card
            return _Products(MatrixProducts(self._arithmetic, rows, card.dtype, card.device))
        except ValueError:
            return None

    def _roofline(self, products: _Products | None, seconds: float) -> Roofline | None:
        if products is None:
            return None
        lengths = [len(ids) for part in self._configured.passes for ids in part.ids]
        flop = sum(map(self._arithmetic.flop, lengths))
        way, gemm = products.fastest()
        return Roofline(
            gemm_flop_per_s=gemm,
            engine_flop_per_s=flop / seconds,
            flop_per_token=flop / sum(lengths),
            share=flop / seconds / gemm,
            way=way,
        )

    def _single_text_s(self) -> float:
        """Return the median seconds of a pass with a single text, after a pause."""
        times = []
        for text in self._texts[:_SINGLE_TEXTS]:
            (model_input,) = self._tokeniser.tokenise([text])
            self._clock.sleep(ALONE_GAP_S)
            started = self._clock.monotonic()
            self._classifier.predict(model_input)
            times.append(self._clock.monotonic() - started)
        return statistics.median(times)

    def _model_info(self) -> ModelInfo:
        tokens = sum(part.tokens for part in self._configured.passes)
        return ModelInfo(
            name=self._card.name,
            engine=self._card.engine,
            dtype=self._card.dtype,
            device=self._card.device,
            threads=threads(),
            max_tokens=self._card.max_tokens,
            tokens_per_text=tokens / len(self._texts),
        )


class _Products:
    """Times the matrix products once a round, in each way."""

    def __init__(self, products: MatrixProducts) -> None:
        self._products = products
        self._times: dict[str, list[float]] = {way: [] for way in products.ways}

    def measure(self, clock: Clock) -> None:
        for way, seconds in self._times.items():
            seconds.append(self._products.seconds(way, clock))

    def fastest(self) -> tuple[str, float]:
        """Return the fastest way and its best FLOP/s, the upper bound of the engine's speed."""
        best = {way: min(seconds) for way, seconds in self._times.items()}
        way = min(best, key=lambda name: best[name])
        return way, self._products.flop / best[way]


if __name__ == "__main__":
    sys.exit(main())
