"""The engine alone, measured in a process of its own: `python -m worker.bench.engine`.

Owns: what is compared with what, in turns, and the medians. `streamlabel bench` starts it, so that
the process that sends and reads texts stays free of torch. Runs on: the main thread. Prints one
JSON object: `{"model": ..., "engine": ...}` of `bench_figures`. Must not import: kafka.
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
from worker.bench.figures import Engine, EnginePoint, Model, Roofline
from worker.clock import Clock, SystemClock
from worker.core.budget import ForwardBudget
from worker.core.model import Classifier
from worker.core.records import ModelInput
from worker.errors import OutOfMemory, StreamlabelError
from worker.inference.loading import load as load_model
from worker.settings import Settings, load

# Other budgets than the one in force, with windows in proportion.
_SWEEP: Final = (0.25, 0.5, 2.0, 4.0)
# Rows enough for the best speed of a matrix product; more would only take longer.
_PRODUCT_ROWS: Final = 2_048
_ALONE: Final = 20


@dataclass(frozen=True)
class _Candidate:
    """The texts, cut for one budget."""

    forward_tokens: int
    window: int
    passes: Sequence[ModelInput]

    def run(self, classifier: Classifier) -> None:
        for one in self.passes:
            classifier.predict(one)

    def point(self, texts: int, seconds: float) -> EnginePoint:
        rate = texts / seconds
        return EnginePoint(
            forward_tokens=self.forward_tokens,
            window=self.window,
            texts_per_s=rate,
            tokens_per_s=sum(one.tokens for one in self.passes) / seconds,
            window_s=self.window / rate,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where the model can't be loaded."""
    parser = argparse.ArgumentParser(prog="bench_engine", description=__doc__)
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, help="a JSON array")
    parser.add_argument("--rounds", type=int, required=True)
    parser.add_argument("--sweep", action="store_true")
    args = parser.parse_args(arguments)
    logs.configure("warning", "plain")
    texts: list[str] = json.loads(args.texts.read_text(encoding="utf-8"))
    try:
        bench = _Bench(load({}, args.config, environ={}).settings, texts, SystemClock())
        model, engine = bench.run(args.rounds, sweep=args.sweep)
    except StreamlabelError as error:
        print(f"streamlabel bench: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"model": model.model_dump(), "engine": engine.model_dump()}), flush=True)
    return 0


class _Bench:
    def __init__(self, settings: Settings, texts: Sequence[str], clock: Clock) -> None:
        self._settings, self._texts, self._clock = settings, texts, clock
        batch = settings.batch
        self._tokeniser, self._classifier = load_model(settings.model, batch.forward_tokens)
        self._classifier.warm_up()
        self._card = self._classifier.card
        self._plain = PlainPipeline(settings.model, self._card.device, self._card.max_tokens)
        self._plain.label(self._texts[:1])  # its warm-up
        self._arithmetic = self._plain.arithmetic()
        window = min(batch.max_records, len(texts))
        self._budget = self._card.forward_tokens  # as set, or as the warm-up found it
        self._configured = self._cut(self._budget, window)

    def run(self, rounds: int, *, sweep: bool) -> tuple[Model, Engine]:
        candidates = [self._configured, *(self._others() if sweep else ())]
        products = self._products()
        plain, *ours, tokenise = self._seconds(
            rounds,
            [
                lambda: self._plain.label(self._texts),
                *(self._runner(candidate) for candidate in candidates),
                lambda: self._cut(self._budget, self._configured.window),
            ],
            products,
        )
        points = [c.point(len(self._texts), s) for c, s in zip(candidates, ours, strict=True)]
        engine = Engine(
            texts=len(self._texts),
            rounds=rounds,
            configured=points[0],
            sweep=tuple(sorted(points[1:], key=lambda point: point.forward_tokens)),
            pipeline_texts_per_s=len(self._texts) / plain,
            to_pipeline=plain / ours[0],
            tokenise_texts_per_s=len(self._texts) / tokenise,
            roofline=self._roofline(products, ours[0]),
            one_text_s=self._one_text(),
        )
        return self._model(), engine

    def _seconds(
        self,
        rounds: int,
        contenders: Sequence[Callable[[], object]],
        products: _Products | None,
    ) -> list[float]:
        """Median seconds of each; they take turns, so that a machine that drifts drifts for all."""
        found: list[list[float]] = [[] for _ in contenders]
        for _ in range(rounds):
            for contender, seconds in zip(contenders, found, strict=True):
                begun = self._clock.monotonic()
                contender()
                seconds.append(self._clock.monotonic() - begun)
            if products:
                products.measure(self._clock)
        return [statistics.median(seconds) for seconds in found]

    def _runner(self, candidate: _Candidate) -> Callable[[], None]:
        return lambda: candidate.run(self._classifier)

    def _cut(self, forward_tokens: int, window: int) -> _Candidate:
        budget = ForwardBudget(forward_tokens, pads=self._card.pads)
        windows = (self._texts[n : n + window] for n in range(0, len(self._texts), window))
        inputs = (one for texts in windows for one in self._tokeniser.tokenise(texts))
        return _Candidate(forward_tokens, window, [one for i in inputs for one in budget.cut(i)])

    def _others(self) -> list[_Candidate]:
        """The texts at other budgets, as far as those fit the memory and a longest text."""
        batch, found = self._settings.batch, []
        for factor in _SWEEP:
            budget = int(self._budget * factor)
            window = max(1, int(batch.max_records * factor))
            if budget < self._card.max_tokens or window > len(self._texts):
                continue
            candidate = self._cut(budget, window)
            try:
                self._classifier.predict(max(candidate.passes, key=lambda one: one.padded_tokens))
            except OutOfMemory:
                continue
            found.append(candidate)
        return found

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
        lengths = [len(ids) for one in self._configured.passes for ids in one.ids]
        flop = sum(map(self._arithmetic.flop, lengths))
        way, gemm = products.fastest()
        return Roofline(
            gemm_flop_per_s=gemm,
            engine_flop_per_s=flop / seconds,
            flop_per_token=flop / sum(lengths),
            share=flop / seconds / gemm,
            way=way,
        )

    def _one_text(self) -> float:
        """Median seconds of a pass of one text that comes alone."""
        found = []
        for text in self._texts[:_ALONE]:
            (alone,) = self._tokeniser.tokenise([text])
            self._clock.sleep(ALONE_GAP_S)
            begun = self._clock.monotonic()
            self._classifier.predict(alone)
            found.append(self._clock.monotonic() - begun)
        return statistics.median(found)

    def _model(self) -> Model:
        tokens = sum(one.tokens for one in self._configured.passes)
        return Model(
            name=self._card.name,
            engine=self._card.engine,
            dtype=self._card.dtype,
            device=self._card.device,
            threads=threads(),
            max_tokens=self._card.max_tokens,
            tokens_per_text=tokens / len(self._texts),
        )


class _Products:
    """Matrix products, timed once a round in each way."""

    def __init__(self, products: MatrixProducts) -> None:
        self._products = products
        self._found: dict[str, list[float]] = {way: [] for way in products.ways}

    def measure(self, clock: Clock) -> None:
        for way, seconds in self._found.items():
            seconds.append(self._products.seconds(way, clock))

    def fastest(self) -> tuple[str, float]:
        """The faster way, and its FLOP/s: at its best, for it is what the engine can't pass."""
        best = {way: min(seconds) for way, seconds in self._found.items()}
        way = min(best, key=lambda name: best[name])
        return way, self._products.flop / best[way]


if __name__ == "__main__":
    sys.exit(main())
