"""Puts the predictions of a text's windows together, which may come from several passes.

Owns: the predictions of texts whose windows are not all computed.
Thread: infer; pure.
Must not import: anything but core.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from worker.core.decisions.windows import Extent, WindowPlan, combined
from worker.core.faults import Failed
from worker.core.records import ModelCard, ModelInput, Prediction

Result = Prediction | Failed
Combination = Callable[..., tuple[float, ...]]


def whole_texts(
    results: Iterator[tuple[int, Result]], model_input: ModelInput, card: ModelCard
) -> Iterator[tuple[int, Result]]:
    """Return each text's position and result, as soon as its last window has one.

    A text fails if one of its windows does, with the error of the first.

    Args:
        results: position and result of each row, in the order of `model_input`.
        model_input: the rows, with all windows of each text.
        card: of the model; its plan combines them. Without one each row is a text.
    """
    return results if card.windows is None else _gathered(results, model_input, card, card.windows)


def _gathered(
    results: Iterator[tuple[int, Result]],
    model_input: ModelInput,
    card: ModelCard,
    plan: WindowPlan,
) -> Iterator[tuple[int, Result]]:
    combine = partial(combined, plan, sums_to_one=card.activation == "softmax")
    expected = Counter(model_input.positions)
    extents = dict(zip(model_input.positions, model_input.extents, strict=True))
    known: defaultdict[int, list[Result]] = defaultdict(list)
    for position, result in results:
        known[position].append(result)
        if len(known[position]) == expected[position]:
            yield position, _whole(known.pop(position), extents[position], combine)


def _whole(windows: list[Result], extent: Extent, combine: Combination) -> Result:
    predictions: list[Prediction] = []
    for window in windows:
        if isinstance(window, Failed):
            return window
        predictions.append(window)
    rows, tokens = zip(
        *((each.probabilities, each.token_count) for each in predictions), strict=True
    )
    return replace(
        predictions[0],
        probabilities=combine(rows, tokens),
        token_count=extent.read,
        windows=len(predictions),
        total_tokens=extent.total,
    )
