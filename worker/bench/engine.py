"""Measures the engine alone, in a process of its own: `python -m worker.bench.engine`.

`streamlabel bench` starts it, so that the process that sends and reads texts stays free of torch.
For each line on standard input it measures one round and prints the engine's figures in it, as
JSON. At the end of the input it prints `{"model": ..., "engine": ...}` in the form of
`worker.bench.figures`.

Owns: the comparisons, run in turns, and their medians.
Thread: main.
Must not import: kafka.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import torch

from worker import logs
from worker.bench.arrivals import ALONE_GAP_S
from worker.bench.baselines import MatrixProducts, PlainPipeline, threads
from worker.bench.figures import (
    DtypeResult,
    EngineResult,
    ModelInfo,
    PrimitivesMade,
    Roofline,
)
from worker.bench.measured import MeasuredModel, Timing, timed
from worker.bench.primitives import primitives_made
from worker.bench.texts import drawn, reordered, repeated
from worker.clock import Clock, SystemClock
from worker.core.decisions.treatment import treatment
from worker.core.model import PreparesTexts, Tokeniser
from worker.errors import SettingsError, StreamlabelError
from worker.inference.loading import load as load_model
from worker.inference.placement import choose_dtype
from worker.settings import ModelSettings, Settings, load

# Multiples of the budget in force that are measured too, with windows in proportion.
_SWEEP: Final = (0.25, 0.5, 2.0, 4.0)
# Number types that are compared, where this version has them and the processor computes in them.
_DTYPES: Final = ("float32", "bfloat16", "int8")
# Enough rows for the best speed of a matrix product; more only take longer.
_PRODUCT_ROWS: Final = 2_048


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print and return 0, or 1 if the model can't be loaded."""
    parser = argparse.ArgumentParser(
        prog="bench_engine", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--texts", type=Path, required=True, help="a JSON array")
    parser.add_argument("--number", type=int, required=True, help="texts of a round")
    parser.add_argument("--alone", type=int, required=True, help="single texts")
    parser.add_argument("--sweep", action="store_true", help="other budgets and number types too")
    args = parser.parse_args(arguments)
    logs.configure("warning", "plain")
    texts: list[str] = json.loads(args.texts.read_text(encoding="utf-8"))
    try:
        settings = load({}, args.config, environ={}).settings
        bench = _EngineBench(settings, texts, args.number, SystemClock(), sweep=args.sweep)
        for _ in sys.stdin:
            print(json.dumps(bench.round()), flush=True)
        print(json.dumps(bench.result(args.alone)), flush=True)
    except StreamlabelError as error:
        print(f"streamlabel bench: {error}", file=sys.stderr)
        return 1
    return 0


def _with_label(tokeniser: Tokeniser, texts: Sequence[str]) -> Sequence[str]:
    """Return the texts without those that the preparation skips or fails on.

    Raises:
        SettingsError: none is left.
    """
    if not isinstance(tokeniser, PreparesTexts):
        return texts
    prepared = zip(texts, tokeniser.prepare(texts), strict=True)
    kept = [text for text, result in prepared if isinstance(result, str)]
    if not kept:
        raise SettingsError("prepare.function leaves none of the texts: give others with --texts")
    return kept


class _EngineBench:
    """The engine at its settings, its rivals and the baselines, measured round by round."""

    def __init__(
        self, settings: Settings, texts: Sequence[str], number: int, clock: Clock, *, sweep: bool
    ) -> None:
        self._settings, self._number = settings, number
        self._clock, self._turn, self._rounds = clock, 0, 0
        model, batch = settings.model, settings.batch
        self._tokeniser, self._classifier = load_model(
            model, batch.forward_tokens, treatment=treatment(settings)
        )
        self._classifier.warm_up()
        self._texts = texts = _with_label(self._tokeniser, texts)
        self._card = self._classifier.card
        self._budget = self._card.forward_tokens  # the setting, or the warm-up's choice
        self._configured = self._measured(self._budget, min(batch.max_records, number))
        self._primitives = [self._count_primitives()]
        self._plain = PlainPipeline(model, self._card.device, self._card.max_tokens)
        self._plain.label(texts[:1])  # warm-up
        self._arithmetic = self._plain.arithmetic()
        self._products = self._bare_products()
        self._sweep = list(self._other_budgets()) if sweep else []
        self._refused: list[DtypeResult] = []
        self._dtypes = dict(self._other_dtypes()) if sweep else {}
        self._plain_times: list[Timing] = []
        self._tokenise_times: list[Timing] = []

    def round(self) -> dict[str, float]:
        """Measure everything on new texts; return the engine's texts/s and CPU us a text.

        Each model gets the texts in an order of its own, so that none meets the shapes of another.
        The engine at its settings comes last, right before the drain that it is compared with.
        """
        texts, clock = self._new_texts(), self._clock
        self._plain_times.append(timed(lambda: self._plain.label(texts), clock))
        for order, model in enumerate([*self._sweep, *self._dtypes.values()]):
            model.measure(reordered(texts, order))
        if self._products:
            self._products.measure(clock)
        self._tokenise_times.append(timed(lambda: self._configured.passes(texts), clock))
        self._configured.measure(texts)
        self._rounds += 1
        mine = self._configured
        return {"texts_per_s": mine.texts_per_s, "cpu_us_per_text": mine.cpu_us_per_text}

    def result(self, alone: int) -> dict[str, Any]:
        """Return the medians over all rounds, with the pass of a single text."""
        self._primitives.append(self._count_primitives())
        plain, tokenise = (
            self._number / statistics.median(timing.seconds for timing in times)
            for times in (self._plain_times, self._tokenise_times)
        )
        point = self._configured.point()
        sweep = (model.point() for model in self._sweep)
        dtypes = [DtypeResult(dtype=d, point=m.point()) for d, m in self._dtypes.items()]
        engine = EngineResult(
            texts=self._number,
            rounds=self._rounds,
            configured=point,
            sweep=tuple(sorted(sweep, key=lambda point: point.forward_tokens)),
            pipeline_texts_per_s=plain,
            to_pipeline=point.texts_per_s / plain,
            tokenise_texts_per_s=tokenise,
            roofline=self._roofline(),
            one_text_s=self._single_text_s(alone),
            primitives=self._made(),
            dtypes=(*dtypes, *self._refused),
        )
        return {"model": self._model_info().model_dump(), "engine": engine.model_dump()}

    def _new_texts(self) -> list[str]:
        self._turn += 1
        return drawn(self._texts, self._number, self._turn)

    def _measured(self, forward_tokens: int, window: int) -> MeasuredModel:
        return MeasuredModel(self._tokeniser, self._classifier, forward_tokens, window, self._clock)

    def _other_budgets(self) -> Iterator[MeasuredModel]:
        """Yield the model at other budgets that fit the memory and the longest text."""
        texts = self._new_texts()
        for factor in _SWEEP:
            budget = int(self._budget * factor)
            window = max(1, int(self._settings.batch.max_records * factor))
            if budget < self._card.max_tokens or window > self._number:
                continue
            model = self._measured(budget, window)
            if model.fits(texts):
                yield model

    def _other_dtypes(self) -> Iterator[tuple[str, MeasuredModel]]:
        """Yield the model in each other number type; one that can't be loaded is noted."""
        batch = self._settings.batch
        for dtype in _comparable(self._card.device):
            if dtype == self._card.dtype:
                continue
            changed = self._settings.model.model_dump() | {"dtype": dtype}
            try:
                settings = ModelSettings.model_validate(changed)
                tokeniser, classifier = load_model(
                    settings, batch.forward_tokens, treatment=treatment(self._settings)
                )
            except StreamlabelError as error:
                self._refused.append(DtypeResult(dtype=dtype, refused=str(error)))
                continue
            classifier.warm_up()
            budget = classifier.card.forward_tokens
            window = min(batch.max_records, self._number)
            yield dtype, MeasuredModel(tokeniser, classifier, budget, window, self._clock)

    def _count_primitives(self) -> int | None:
        if self._card.device != "cpu":
            return None
        passes = self._configured.passes(self._new_texts())
        return primitives_made(lambda: self._configured.label(passes))

    def _made(self) -> PrimitivesMade | None:
        first, later = self._primitives
        if first is None or later is None:
            return None
        thousand = 1000 / self._number
        return PrimitivesMade(first=first * thousand, later=later * thousand)

    def _bare_products(self) -> _Products | None:
        card, rows = self._card, min(_PRODUCT_ROWS, self._budget)
        try:
            return _Products(MatrixProducts(self._arithmetic, rows, card.dtype, card.device))
        except ValueError:
            return None

    def _roofline(self) -> Roofline | None:
        if self._products is None:
            return None
        flop = self._arithmetic.flop
        way, gemm = self._products.fastest()
        engine = self._configured.flop_per_s(flop)
        return Roofline(
            gemm_flop_per_s=gemm,
            engine_flop_per_s=engine,
            flop_per_token=self._configured.flop_per_token(flop),
            share=engine / gemm,
            way=way,
        )

    def _single_text_s(self, number: int) -> float:
        """Return the median seconds of a pass with a single text, after a pause."""
        times = []
        for text in repeated(self._texts, number):
            (model_input,) = self._tokeniser.tokenise([text])
            self._clock.sleep(ALONE_GAP_S)
            started = self._clock.monotonic()
            self._classifier.predict(model_input)
            times.append(self._clock.monotonic() - started)
        return statistics.median(times)

    def _model_info(self) -> ModelInfo:
        return ModelInfo(
            name=self._card.name,
            engine=self._card.engine,
            dtype=self._card.dtype,
            device=self._card.device,
            threads=threads(),
            max_tokens=self._card.max_tokens,
            tokens_per_text=self._configured.tokens_per_text,
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


def _comparable(device: str) -> list[str]:
    """Return the number types of `model.dtype` that the device computes in natively."""
    known = get_args(ModelSettings.model_fields["dtype"].annotation)
    emulated = "bfloat16" if choose_dtype("auto", device) is not torch.bfloat16 else ""
    on_gpu = {"int8"} if device != "cpu" else set()
    return [dtype for dtype in _DTYPES if dtype in known and dtype not in {emulated, *on_gpu}]


if __name__ == "__main__":
    sys.exit(main())
