"""The comparison of engines as Markdown, with its goals.

Owns: the goals of the comparison; pure.
Thread: main.
Must not import: kafka, torch.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from typing import Final

from benchmarks.engines.contenders import OPENVINO, OURS
from benchmarks.engines.figures import EngineFigures, EngineModel, Engines, EngineTurn
from benchmarks.engines.turns import ALL, by_size
from worker.core.counted import counted

Row = tuple[str, str, str, str]

# Our speed relative to OpenVINO's in the same number type, in each window.
_SPEED: Final = {"bfloat16": 1.3, "int8": 1.2}
_FLIPS: Final = 0.1  # of OpenVINO's, in int8
_MET: Final = {True: "met", False: "not met"}


def goals(results: Engines) -> list[Row]:
    """Return measurement, goal, figure and verdict of every goal that was measured."""
    return [row for model in results.models for row in _of_model(model)]


def _of_model(model: EngineModel) -> Iterator[Row]:
    for dtype, bound in _SPEED.items():
        ours, theirs = model.engine(OURS, dtype), model.engine(OPENVINO, dtype)
        if not ours or not theirs:
            continue
        pair = f"{model.name}: {OURS} / {OPENVINO}, {dtype}"
        for window in ours.turns:
            ratio = model.ratio(ours, theirs, window)
            texts = "all texts at once" if window == ALL else f"windows of {window}"
            yield f"{pair}, {texts}", f"≥ {bound:g}", f"{ratio:.2f}", _MET[ratio >= bound]
        if dtype == "int8":
            yield from _flips(f"{pair}, changed labels", ours, theirs)
    yield from _alone(model)


def _flips(measurement: str, ours: EngineFigures, theirs: EngineFigures) -> Iterator[Row]:
    flips, others = _sum(ours), _sum(theirs)
    if flips is not None and others is not None:
        met = flips <= _FLIPS * others
        yield measurement, f"≤ {_FLIPS:g} of its", f"{flips} : {others}", _MET[met]


def _alone(model: EngineModel) -> Iterator[Row]:
    ours = [engine for engine in model.engines if engine.engine == OURS and not engine.failed]
    others = [engine for engine in model.engines if engine.engine != OURS and not engine.failed]
    if ours and others:
        best, other = min(map(_alone_ms, ours)), min(map(_alone_ms, others))
        measurement = f"{model.name}: one text, our best / the best other"
        yield measurement, "≤ 1", f"{best / other:.2f}", _MET[best <= other]


def markdown(results: Engines) -> str:
    """Return the goals, a table for each model, and a caption with the conditions."""
    parts = []
    if rows := goals(results):
        parts.append(_table(("Measurement", "Goal", "Figure", "Verdict"), rows))
    for model in results.models:
        parts += [_figures(model), _caption(results, model)]
    return "\n\n".join(parts)


def _figures(model: EngineModel) -> str:
    windows = by_size({window for engine in model.engines for window in engine.turns})
    head = (
        model.name,
        *(f"Texts/s, {f'windows of {window}' if window != ALL else ALL}" for window in windows),
        "CPU ms a text",
        "Changed labels",
        "Mean, largest difference",
        "One text, ms",
    )
    return _table(head, [_row(engine, windows) for engine in model.engines])


def _row(engine: EngineFigures, windows: Sequence[str]) -> list[str]:
    title = f"{engine.name} ({engine.versions})" if engine.versions else engine.name
    if engine.failed:
        return [title, engine.failed, *[""] * (len(windows) + 3)]
    whole, flips = engine.turns[ALL], _sum(engine)
    known = [(turn.mean_dp, turn.max_dp) for turn in whole if turn.mean_dp is not None]
    means, largest = [mean for mean, _ in known], [most for _, most in known if most is not None]
    return [
        title,
        *(_rate(engine.turns.get(window, ())) for window in windows),
        f"{statistics.median(turn.cpu_us for turn in whole) / 1000:.2f}",
        "" if flips is None else str(flips),
        f"{statistics.fmean(_known(means)):.0e}, {max(largest):.0e}" if largest else "",
        f"{_alone_ms(engine):.1f}",
    ]


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _rate(turns: Sequence[EngineTurn]) -> str:
    return f"{statistics.median(turn.texts_per_s for turn in turns):.1f}" if turns else ""


def _sum(engine: EngineFigures) -> int | None:
    """Return the flips of all rounds, or None if there was no reference."""
    flips = [turn.flips for turn in engine.turns[ALL]]
    return None if None in flips else sum(flip for flip in flips if flip is not None)


def _alone_ms(engine: EngineFigures) -> float:
    return statistics.median(engine.alone_ms)


def _caption(results: Engines, model: EngineModel) -> str:
    features = ", ".join(results.features) or "no matrix extensions"
    conditions = [
        f"Engines on {model.name}: {results.cpu}, {counted(results.cores, 'core')} ({features})",
        model.date,
        counted(model.threads, "thread"),
        f"{counted(model.rounds, 'round')} of {counted(model.texts, 'tweet')}, tokenising included",
        "turns shuffled, new texts in each round, medians",
        "labels and differences against float32, each text alone",
    ]
    if model.busy_cores > results.cores / 4:
        conditions.append(f"UNRELIABLE: other programs kept {model.busy_cores:.1f} cores busy")
    return "; ".join(conditions) + "."


def _table(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
